//! In the place of the steps on a GPU where there is none.

use std::time::Duration;

use crate::engine::{BackwardRank, DoubleRank, ForwardRank, GradientIntegers, Layer};
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Pending};
use crate::plan::Activation;
use crate::stats::{
    Centering, DoubleCentering, GradCentering, GradientSums, GridParams, IntegerSums, Moments,
    Normalization, ValueRange,
};

pub(super) fn prepare(gpu: &Gpu, _: Activation<'_>, _: Layer<'_>, _: bool) -> Result<(), Error> {
    match *gpu {}
}

pub(super) fn statistics(
    gpu: &Gpu,
    _: Duration,
    _: Vec<&mut ForwardRank<'_>>,
) -> Result<Pending<Vec<Vec<Moments>>>, Error> {
    match *gpu {}
}

/// No recorded commands.
pub(crate) enum Ahead {}

pub(super) fn record_normalize<'r, 'a: 'r>(
    gpu: &Gpu,
    _: impl Iterator<Item = &'r ForwardRank<'a>>,
) -> Result<Ahead, Error> {
    match *gpu {}
}

pub(super) fn record_input_gradients<'r, 'a: 'r>(
    gpu: &Gpu,
    _: impl Iterator<Item = &'r BackwardRank<'a>>,
) -> Result<Ahead, Error> {
    match *gpu {}
}

pub(super) fn normalize(
    gpu: &Gpu,
    _: Vec<(&mut ForwardRank<'_>, &[Centering])>,
    _: Option<Ahead>,
) -> Result<Pending<()>, Error> {
    match *gpu {}
}

pub(super) fn gradient_sums(
    gpu: &Gpu,
    _: Duration,
    _: Vec<(&mut BackwardRank<'_>, &Normalization)>,
) -> Result<Pending<Vec<Vec<GradientSums>>>, Error> {
    match *gpu {}
}

pub(super) fn double_sums(
    gpu: &Gpu,
    _: Duration,
    _: &mut DoubleRank<'_>,
    _: Vec<GradCentering>,
) -> Result<Pending<Vec<[f64; 3]>>, Error> {
    match *gpu {}
}

pub(super) fn double_gradients(
    gpu: &Gpu,
    _: &mut DoubleRank<'_>,
    _: &[DoubleCentering],
) -> Result<Pending<()>, Error> {
    match *gpu {}
}

pub(super) fn ranges(
    gpu: &Gpu,
    _: Duration,
    _: Vec<&mut ForwardRank<'_>>,
) -> Result<Pending<Vec<Vec<ValueRange>>>, Error> {
    match *gpu {}
}

pub(super) fn integers(
    gpu: &Gpu,
    _: Duration,
    _: Vec<(&mut ForwardRank<'_>, &[GridParams])>,
    _: bool,
) -> Result<Pending<Vec<Vec<IntegerSums<true>>>>, Error> {
    match *gpu {}
}

pub(super) fn gradient_ranges(
    gpu: &Gpu,
    _: Duration,
    _: Vec<(&mut BackwardRank<'_>, &Normalization)>,
) -> Result<Pending<Vec<Vec<ValueRange>>>, Error> {
    match *gpu {}
}

pub(super) fn gradient_integers(
    gpu: &Gpu,
    _: Duration,
    _: Vec<GradientIntegers<'_, '_>>,
) -> Result<Pending<Vec<Vec<IntegerSums<false>>>>, Error> {
    match *gpu {}
}

pub(super) fn input_gradients(
    gpu: &Gpu,
    _: Vec<(&mut BackwardRank<'_>, &[GradCentering])>,
    _: Option<Ahead>,
) -> Result<Pending<()>, Error> {
    match *gpu {}
}

pub(super) fn accumulate(gpu: &Gpu, _: &BufferSlice, _: &[f32]) -> Result<Pending<()>, Error> {
    match *gpu {}
}
