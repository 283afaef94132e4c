//! Fused passes whose sums are of integers: range, sums and outputs of some channels before the
//! next ones. The range of a channel is known before its sums begin, and both are read from the
//! cache.
//!
//! ```text
//! for some channels, of which all ranks' values fit a cache:            a task
//!     for rank:  range of its values                                    read from memory
//!     merge the ranks' ranges;  grids of these channels
//!     for rank:  sums of its integers                                   read from the cache
//!     for rank:  sums of rounding errors, in channels with far outliers
//!     merge the ranks' sums;  moments, coefficients of these channels
//!     for rank, from the last:  write its outputs
//! ```

use std::ops::Range;

use super::{backward, forward};
use crate::dtype::Element;
use crate::host::exact::{ChannelRange, Channels, GradientRank, local_integers, local_ranges};
use crate::host::rank::{BackwardRank, ForwardRank};
use crate::host::threads::Threads;
use crate::shape::Shape;
use crate::stats::exact::{
    ExactGradients, ExactStatistics, gradients, grids, moments, params, wide_params,
};
use crate::stats::{
    Centering, GradCentering, GradientSums, Grid, GridParams, IntegerSums, Mergeable, Moments,
    Normalization,
};

/// Statistics and y of all ranks of a group; `None` where separate phases are better, with nothing
/// written. `center` gives the parameters of some channels from their moments.
pub(crate) fn forward_exact<X: Element, Y: Element>(
    ranks: &mut [ForwardRank<'_, X, Y>],
    center: impl Fn(&[Moments]) -> Vec<Centering> + Sync,
    threads: &Threads,
) -> Option<ExactStatistics> {
    let count = ranks.len();
    let find = |ranks: &[forward::Rank<'_, X>], channels: &Range<usize>| {
        let found = statistics(ranks, channels);
        (center(&found.global), found)
    };
    let parts = forward::by_task(ranks, find, threads)?;
    let mut all = ExactStatistics { local: vec![Vec::new(); count], ..Default::default() };
    for part in parts {
        all.ranges.extend(part.ranges);
        all.global.extend(part.global);
        extend_each(&mut all.local, part.local);
    }
    Some(all)
}

fn extend_each<T>(all: &mut [Vec<T>], part: Vec<Vec<T>>) {
    all.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
}

/// The statistics of some channels of all ranks.
fn statistics<X: Element>(
    ranks: &[forward::Rank<'_, X>],
    channels: &Range<usize>,
) -> ExactStatistics {
    let ranges = merged(ranks.iter().map(|rank| {
        let range = ChannelRange::Some(Channels { planes: rank.planes, channels });
        local_ranges(rank.x, rank.shape, range)
    }));
    let grids = grids(&ranges);
    let integers = |by: &[GridParams], rests: bool| -> Vec<Vec<IntegerSums<true>>> {
        let of_rank = |rank: &forward::Rank<'_, X>| {
            let range = ChannelRange::Some(Channels { planes: rank.planes, channels });
            counted(local_integers(rank.x, rank.shape, by, rests, range), rank.shape)
        };
        ranks.iter().map(of_rank).collect()
    };
    let sums = integers(&params(&grids), false);
    let of_all = merged(sums.iter().cloned());
    let wide = wide_params(&grids, &of_all);
    let is_wide = wide.iter().any(|of| *of != GridParams::ZERO);
    let rests = if is_wide { integers(&wide, true) } else { vec![Vec::new(); ranks.len()] };
    let global = moments(&grids, &of_all, &merged(rests.iter().cloned()));
    let local = if ranks.len() == 1 {
        vec![global.clone()]
    } else {
        sums.iter().zip(&rests).map(|(sums, rests)| moments(&grids, sums, rests)).collect()
    };
    ExactStatistics { ranges, global, local }
}

/// Gradient sums and gradients of all ranks of a group, as [`forward_exact`]. `of_x` are the grids
/// of x; `finish` gives the parameters of some channels from their sums.
pub(crate) fn backward_exact<G: Element, X: Element>(
    ranks: &mut [BackwardRank<'_, G, X>],
    normalization: &Normalization,
    of_x: &[Grid],
    finish: impl Fn(&Normalization, &[GradientSums]) -> Vec<GradCentering> + Sync,
    threads: &Threads,
) -> Option<ExactGradients> {
    let count = ranks.len();
    let find = |ranks: &[backward::Rank<'_, G, X>], channels: &Range<usize>, of: &Normalization| {
        let found = gradient_sums(ranks, channels, of, &of_x[channels.clone()]);
        (finish(of, &found.global), found)
    };
    let parts = backward::by_task(ranks, normalization, find, threads)?;
    let mut all = ExactGradients { local: vec![Vec::new(); count], ..Default::default() };
    for part in parts {
        all.global.extend(part.global);
        extend_each(&mut all.local, part.local);
    }
    Some(all)
}

/// The gradient sums of some channels of all ranks.
fn gradient_sums<G: Element, X: Element>(
    ranks: &[backward::Rank<'_, G, X>],
    channels: &Range<usize>,
    normalization: &Normalization,
    of_x: &[Grid],
) -> ExactGradients {
    let of = ranks.iter().map(|rank| {
        let backward::Rank { g, upstream, layer, planes } = *rank;
        (GradientRank { g, upstream, layer }, ChannelRange::Some(Channels { planes, channels }))
    });
    let ranges = merged(of.clone().map(|(rank, range)| rank.ranges(normalization, range)));
    let of_g = grids(&ranges);
    let by = [params(of_x), params(&of_g)];
    let sums = of.map(|(rank, range)| {
        let sums = rank.integers(normalization, [&by[0], &by[1]], range);
        counted(sums, rank.upstream.shape)
    });
    let sums: Vec<Vec<IntegerSums<false>>> = sums.collect();
    let found = |sums: &[IntegerSums<false>]| gradients([of_x, &of_g], sums, &normalization.mean);
    let global = found(&merged(sums.iter().cloned()));
    let local = if ranks.len() == 1 {
        vec![global.clone()]
    } else {
        sums.iter().map(|sums| found(sums)).collect()
    };
    ExactGradients { global, local }
}

/// Of all ranks, by channel.
fn merged<T: Mergeable>(ranks: impl Iterator<Item = Vec<T>>) -> Vec<T> {
    let both = |all: Vec<T>, rank: Vec<T>| {
        all.into_iter().zip(rank).map(|(all, rank)| all.merge(rank)).collect()
    };
    ranks.reduce(both).unwrap_or_default()
}

/// Sums over as many values of each channel as a rank has.
fn counted<const STATISTICS: bool>(
    sums: Vec<[i128; 2]>,
    shape: &Shape,
) -> Vec<IntegerSums<STATISTICS>> {
    let count = shape.values_per_channel();
    sums.into_iter().map(|sums| IntegerSums { count, sums }).collect()
}
