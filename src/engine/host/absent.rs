//! In the place of the steps on the host where it does not compute.

use crate::device::Device;
use crate::engine::{BackwardRank, DoubleRank, ForwardRank};
use crate::error::Error;
use crate::host::Threads;
use crate::stats::exact::{ExactGradients, ExactStatistics};
use crate::stats::{
    Centering, DoubleCentering, GradCentering, GradientSums, Grid, GridParams, Moments,
    Normalization, ValueRange,
};

pub(super) fn statistics(_: &ForwardRank<'_>, threads: &Threads) -> Vec<Moments> {
    match *threads {}
}

pub(super) fn normalize(
    _: &mut ForwardRank<'_>,
    _: &[Centering],
    threads: &Threads,
) -> Result<(), Error> {
    match *threads {}
}

pub(super) fn gradient_sums(
    _: &BackwardRank<'_>,
    _: &Normalization,
    threads: &Threads,
) -> Result<Vec<GradientSums>, Error> {
    match *threads {}
}

pub(super) fn input_gradients(
    _: &mut BackwardRank<'_>,
    _: &[GradCentering],
    threads: &Threads,
) -> Result<(), Error> {
    match *threads {}
}

pub(super) fn double_sums(
    _: &DoubleRank<'_>,
    _: &[GradCentering],
    threads: &Threads,
) -> Vec<[f64; 3]> {
    match *threads {}
}

pub(super) fn double_gradients(_: &mut DoubleRank<'_>, _: &[DoubleCentering], threads: &Threads) {
    match *threads {}
}

pub(super) fn ranges(_: &ForwardRank<'_>, threads: &Threads) -> Vec<ValueRange> {
    match *threads {}
}

pub(super) fn integers(
    _: &ForwardRank<'_>,
    _: &[GridParams],
    _: bool,
    threads: &Threads,
) -> Vec<[i128; 2]> {
    match *threads {}
}

pub(super) fn gradient_ranges(
    _: &BackwardRank<'_>,
    _: &Normalization,
    threads: &Threads,
) -> Result<Vec<ValueRange>, Error> {
    match *threads {}
}

pub(super) fn gradient_integers(
    _: &BackwardRank<'_>,
    _: &Normalization,
    _: [&[GridParams]; 2],
    threads: &Threads,
) -> Result<Vec<[i128; 2]>, Error> {
    match *threads {}
}

pub(crate) fn forward_fused(
    _: &Device,
    _: &mut [ForwardRank<'_>],
    _: impl Fn(&[Vec<Moments>]) -> Vec<Centering> + Sync,
) -> Option<Vec<Vec<Moments>>> {
    None
}

pub(crate) fn backward_fused(
    _: &Device,
    _: &mut [BackwardRank<'_>],
    _: &Normalization,
    _: impl Fn(&Normalization, &[Vec<GradientSums>]) -> Vec<GradCentering> + Sync,
) -> Option<Vec<Vec<GradientSums>>> {
    None
}

pub(crate) fn forward_exact(
    _: &Device,
    _: &mut [ForwardRank<'_>],
    _: impl Fn(&[Moments]) -> Vec<Centering> + Sync,
) -> Option<ExactStatistics> {
    None
}

pub(crate) fn backward_exact(
    _: &Device,
    _: &mut [BackwardRank<'_>],
    _: &Normalization,
    _: &[Grid],
    _: impl Fn(&Normalization, &[GradientSums]) -> Vec<GradCentering> + Sync,
) -> Option<ExactGradients> {
    None
}
