//! In the place of the steps on a GPU where there is none.

use std::time::Duration;

use crate::engine::{BackwardRank, ForwardRank, Layer};
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Pending};
use crate::plan::Activation;
use crate::stats::{Centering, GradCentering, GradientSums, Moments, Normalization};

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

pub(super) fn normalize(
    gpu: &Gpu,
    _: Vec<(&mut ForwardRank<'_>, &[Centering])>,
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

pub(super) fn input_gradients(
    gpu: &Gpu,
    _: Vec<(&mut BackwardRank<'_>, &[GradCentering])>,
) -> Result<Pending<()>, Error> {
    match *gpu {}
}

pub(super) fn accumulate(gpu: &Gpu, _: &BufferSlice, _: &[f32]) -> Result<Pending<()>, Error> {
    match *gpu {}
}
