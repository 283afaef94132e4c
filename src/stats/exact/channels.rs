//! Ranges, grids, sums and moments of several channels.

use super::range::{Grid, GridParams, ValueRange};
use super::sums::IntegerSums;
use crate::stats::{GradientSums, Moments};

pub(crate) fn grids(ranges: &[ValueRange]) -> Vec<Grid> {
    ranges.iter().map(ValueRange::grid).collect()
}

/// Grids as kernels take them.
pub(crate) fn params(grids: &[Grid]) -> Vec<GridParams> {
    grids.iter().map(Grid::params).collect()
}

/// Grids of the channels whose rounding errors count. Values of other channels become 0.
pub(crate) fn wide_params(grids: &[Grid], sums: &[IntegerSums<true>]) -> Vec<GridParams> {
    let of = |(grid, sums): (&Grid, &IntegerSums<true>)| {
        if sums.is_wide(grid) { grid.params() } else { GridParams::ZERO }
    };
    grids.iter().zip(sums).map(of).collect()
}

/// Moments of every channel. `rests` may be empty.
pub(crate) fn moments(
    grids: &[Grid],
    sums: &[IntegerSums<true>],
    rests: &[IntegerSums<true>],
) -> Vec<Moments> {
    let rest = |channel: usize| rests.get(channel).map_or([0; 2], |rests| rests.sums);
    let channels = grids.iter().zip(sums).enumerate();
    channels.map(|(channel, (grid, sums))| sums.moments(grid, rest(channel))).collect()
}

/// Gradient sums of every channel, from the grids of x and of the gradients.
pub(crate) fn gradients(
    [x, g]: [&[Grid]; 2],
    sums: &[IntegerSums<false>],
    means: &[f64],
) -> Vec<GradientSums> {
    let channels = x.iter().zip(g).zip(sums).zip(means);
    channels.map(|(((x, g), sums), mean)| sums.gradient_sums(x, g, *mean)).collect()
}

/// Moments of channels whose ranks were all at hand, and the ranges that gave their grids.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactStatistics {
    /// Of the group.
    pub ranges: Vec<ValueRange>,
    /// Of the group.
    pub global: Vec<Moments>,
    /// `[rank][channel]`.
    pub local: Vec<Vec<Moments>>,
}

/// Gradient sums of channels whose ranks were all at hand.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactGradients {
    /// Of the group.
    pub global: Vec<GradientSums>,
    /// `[rank][channel]`.
    pub local: Vec<Vec<GradientSums>>,
}
