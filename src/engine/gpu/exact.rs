//! Sums of integers on a GPU.

use std::time::Duration;

use crate::engine::{BackwardRank, ForwardRank, GradientIntegers};
use crate::error::{ConfigError, Error};
use crate::gpu::{Gpu, Pending};
use crate::stats::{GridParams, IntegerSums, Normalization, ValueRange};

fn not_here<T>() -> Result<Pending<T>, Error> {
    let setting = "reproducible = true";
    Err(ConfigError::Conflict { setting, needs: "ranks on the host" }.into())
}

pub(in crate::engine) fn ranges(
    _: &Gpu,
    _: Duration,
    _: Vec<&mut ForwardRank<'_>>,
) -> Result<Pending<Vec<Vec<ValueRange>>>, Error> {
    not_here()
}

pub(in crate::engine) fn integers(
    _: &Gpu,
    _: Duration,
    _: Vec<(&mut ForwardRank<'_>, &[GridParams])>,
    _: bool,
) -> Result<Pending<Vec<Vec<IntegerSums<true>>>>, Error> {
    not_here()
}

pub(in crate::engine) fn gradient_ranges(
    _: &Gpu,
    _: Duration,
    _: Vec<(&mut BackwardRank<'_>, &Normalization)>,
) -> Result<Pending<Vec<Vec<ValueRange>>>, Error> {
    not_here()
}

pub(in crate::engine) fn gradient_integers(
    _: &Gpu,
    _: Duration,
    _: Vec<GradientIntegers<'_, '_>>,
) -> Result<Pending<Vec<Vec<IntegerSums<false>>>>, Error> {
    not_here()
}
