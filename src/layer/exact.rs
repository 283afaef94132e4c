//! Sums of integers over all ranks. First comes the range of every channel, which defines its
//! integers. Then come their sums, and for channels with far outliers the sums of the rounding
//! errors.
//!
//! Each is gathered and merged as sums of f32 are. A call keeps its turn from the first exchange to
//! the last.

use super::member::{Calls, Communicating};
use super::merging::{Exchanging, merge, settle};
use super::part::{Part, gather_of};
use super::{Failure, backward, forward};
use crate::engine;
use crate::error::Error;
use crate::stats::{Global, GridParams, IntegerSums, Mergeable, PerRank, ValueRange};

pub(super) use crate::stats::exact::{gradients, grids, moments, params, wide_params};

/// Values of the ranks for one layer, `[rank][channel]`.
pub(super) type Local<T> = Vec<Vec<T>>;

/// Gathered values by layer. Empty for layers without integers.
fn by_part<R, S, H, T>(parts: &[Part<'_, R, S, H>], gathered: Vec<Vec<Vec<T>>>) -> Vec<Local<T>> {
    let mut local: Vec<Local<T>> = parts.iter().map(|_| Vec::new()).collect();
    for of_rank in gathered {
        let wanting = parts.iter().zip(&mut local).filter(|(part, _)| part.wants_exact());
        wanting.zip(of_rank).for_each(|((_, local), of_rank)| local.push(of_rank));
    }
    local
}

/// The layers that exchange something, with the values of their ranks.
fn exchanging<'a, R, S, H, T>(
    parts: &'a [Part<'_, R, S, H>],
    calls: &'a Calls,
    local: &'a [Local<T>],
) -> Vec<Exchanging<'a, T>> {
    let layers = parts.iter().zip(calls).zip(local).enumerate();
    let exchanging = layers.filter_map(|(index, ((part, call), local))| {
        let Communicating { member, call } = call.as_deref()?;
        Some(Exchanging { index, member, call: call.as_ref(), local, tracks: part.tracks })
    });
    exchanging.collect()
}

/// Merges the values of every layer's ranks: of all ranks if the layer communicates. Otherwise each
/// rank keeps its own.
async fn merged<R, S, H, T: Mergeable>(
    parts: &[Part<'_, R, S, H>],
    calls: &Calls,
    local: &[Local<T>],
) -> Result<Vec<PerRank<Vec<T>>>, Failure> {
    let mut shared = merge(&exchanging(parts, calls, local)).await?.into_iter();
    let of_part = |(call, local): (&Option<_>, &Local<T>)| match call {
        Some(_) => PerRank::Shared(shared.next().unwrap_or_default()),
        None => PerRank::Each(local.clone()),
    };
    Ok(calls.iter().zip(local).map(of_part).collect())
}

/// Local and global statistics of every layer with sums of integers. Then running statistics are
/// updated. Layers whose outputs are written have theirs already, and exchange nothing.
pub(super) async fn statistics(
    parts: &mut [forward::Part<'_>],
    calls: &Calls,
) -> Result<(), Failure> {
    if !parts.iter().any(Part::has_integers) {
        return Ok(());
    }
    let local = local_ranges(parts).await?;
    let ranges = merged(parts, calls, &local).await?;
    let of_ranges: Vec<_> = ranges.iter().map(|of| of.map(|of| grids(of))).collect();
    for (part, grids) in parts.iter_mut().zip(&of_ranges) {
        if !part.is_done {
            part.how.grids = part.wants_exact().then(|| grids.clone());
        }
    }
    let by: Vec<_> = of_ranges.iter().map(|of| of.map(|of| params(of))).collect();
    let local = integers(parts, &by, false).await?;
    let sums = merged(parts, calls, &local).await?;
    let by: Vec<_> = of_ranges
        .iter()
        .zip(&sums)
        .map(|(grids, sums)| grids.zip(sums, |grids, sums| wide_params(grids, sums)))
        .collect();
    let (local_rests, rests) = rests(parts, calls, &by).await?;
    let mut globals = Vec::new();
    for (index, (part, call)) in parts.iter_mut().zip(calls).enumerate() {
        if part.is_done {
            globals.extend(part.global.take().filter(|_| call.is_some()));
            continue;
        }
        let ranks = local[index].iter().enumerate();
        part.local = ranks
            .map(|(rank, sums)| {
                let rests = local_rests[index].get(rank).map_or(&[][..], Vec::as_slice);
                moments(of_ranges[index].of(rank), sums, rests)
            })
            .collect();
        if call.is_some() {
            let grids = of_ranges[index].of(0);
            let sums = sums[index].of(0);
            let channels = moments(grids, sums, rests[index].of(0));
            globals.push(Global::new(channels).with_ranges(ranges[index].of(0).clone()));
        }
    }
    settle(&exchanging(parts, calls, &local), &mut globals)?;
    give(parts, calls, globals);
    Ok(())
}

/// The range of x on every rank.
pub(super) async fn local_ranges(
    parts: &mut [forward::Part<'_>],
) -> Result<Vec<Local<ValueRange>>, Error> {
    let gathered = gather_of(parts, Part::wants_exact, |device, rank, parts| {
        engine::ranges(device, parts.into_iter().map(|part| &mut part.ranks[rank]).collect())
    });
    let gathered = gathered.await?;
    Ok(by_part(parts, gathered))
}

/// Sums of rounding errors in channels where they count, local and merged. All ranks make the same
/// decision from shared values, and exchange nothing for other channels.
async fn rests(
    parts: &mut [forward::Part<'_>],
    calls: &Calls,
    by: &[PerRank<Vec<GridParams>>],
) -> Result<Rests, Failure> {
    let counts = |by: &[GridParams]| by.iter().any(|of| *of != GridParams::ZERO);
    let counts_for_all = by.iter().any(|by| match by {
        PerRank::Shared(all) => counts(all),
        PerRank::Each(_) => false,
    });
    let local = if by.iter().flat_map(PerRank::iter).any(|by| counts(by)) {
        integers(parts, by, true).await?
    } else {
        parts.iter().map(|_| Vec::new()).collect()
    };
    let merged = if counts_for_all {
        merged(parts, calls, &local).await?
    } else {
        let none = PerRank::Shared(Vec::new());
        let own = |local: &Local<_>| PerRank::Each(local.clone());
        let of_part =
            |(call, local): (&Option<_>, _)| call.as_ref().map_or(own(local), |_| none.clone());
        calls.iter().zip(&local).map(of_part).collect()
    };
    Ok((local, merged))
}

/// Local sums of every layer, and merged ones.
type Rests = (Vec<Local<IntegerSums<true>>>, Vec<PerRank<Vec<IntegerSums<true>>>>);

/// Stores the merged values in every layer that communicates.
fn give<R, S, H>(parts: &mut [Part<'_, R, S, H>], calls: &Calls, globals: Vec<Global<S>>) {
    let exchanged = parts.iter_mut().zip(calls).filter(|(_, call)| call.is_some());
    exchanged.zip(globals).for_each(|((part, _), global)| part.global = Some(global));
}

/// Sums of the integers of x on every rank, or with `rests` of their rounding errors.
pub(super) async fn integers(
    parts: &mut [forward::Part<'_>],
    by: &[PerRank<Vec<GridParams>>],
    rests: bool,
) -> Result<Vec<Local<IntegerSums<true>>>, Error> {
    let wanting = parts.iter().zip(by).filter(|(part, _)| part.wants_exact());
    let by: Vec<_> = wanting.map(|(_, by)| by).collect();
    let gathered = gather_of(parts, Part::wants_exact, |device, rank, parts| {
        let ranks = parts.into_iter().zip(&by);
        let ranks = ranks.map(|(part, by)| (&mut part.ranks[rank], by.of(rank).as_slice()));
        engine::integers(device, ranks.collect(), rests)
    });
    let gathered = gathered.await?;
    Ok(by_part(parts, gathered))
}

/// Local and global gradient sums of every layer with sums of integers.
pub(super) async fn gradient_sums(
    parts: &mut [backward::Part<'_>],
    calls: &Calls,
) -> Result<(), Failure> {
    if !parts.iter().any(Part::has_integers) {
        return Ok(());
    }
    let local = local_gradient_ranges(parts).await?;
    let ranges = merged(parts, calls, &local).await?;
    let of_g: Vec<_> = ranges.iter().map(|of| of.map(|of| grids(of))).collect();
    let by: Vec<_> = of_g.iter().map(|of| of.map(|of| params(of))).collect();
    let local = gradient_integers(parts, &by).await?;
    let sums = merged(parts, calls, &local).await?;
    let mut globals = Vec::new();
    for (index, (part, call)) in parts.iter_mut().zip(calls).enumerate() {
        if part.is_done {
            globals.extend(part.global.take().filter(|_| call.is_some()));
            continue;
        }
        let Some(of_x) = part.how.grids else { continue };
        let of = |rank: usize, sums: &[IntegerSums<false>]| {
            let normalization = part.how.normalization.of(rank);
            gradients([of_x.of(rank), of_g[index].of(rank)], sums, &normalization.mean)
        };
        let of_ranks = local[index].iter().enumerate().map(|(rank, sums)| of(rank, sums));
        let of_ranks = of_ranks.collect();
        if call.is_some() {
            globals.push(Global::new(of(0, sums[index].of(0))));
        }
        part.local = of_ranks;
    }
    settle(&exchanging(parts, calls, &local), &mut globals)?;
    give(parts, calls, globals);
    Ok(())
}

/// The range of the gradients before the activation on every rank.
pub(super) async fn local_gradient_ranges(
    parts: &mut [backward::Part<'_>],
) -> Result<Vec<Local<ValueRange>>, Error> {
    let gathered = gather_of(parts, Part::wants_exact, |device, rank, parts| {
        let ranks = parts.into_iter().map(|part| {
            let normalization = part.how.normalization.of(rank);
            (&mut part.ranks[rank], normalization)
        });
        engine::gradient_ranges(device, ranks.collect())
    });
    let gathered = gathered.await?;
    Ok(by_part(parts, gathered))
}

/// Sums of the integers of the gradients on every rank, and of their products with those of x.
pub(super) async fn gradient_integers(
    parts: &mut [backward::Part<'_>],
    by: &[PerRank<Vec<GridParams>>],
) -> Result<Vec<Local<IntegerSums<false>>>, Error> {
    let wanting = parts.iter().zip(by).filter(|(part, _)| part.wants_exact());
    let by: Vec<_> = wanting.map(|(_, by)| by).collect();
    let gathered = gather_of(parts, Part::wants_exact, |device, rank, parts| {
        let ranks = parts.into_iter().zip(&by).map(|(part, by)| {
            let of_x = part.how.grids.map_or(Vec::new(), |grids| params(grids.of(rank)));
            let normalization = part.how.normalization.of(rank);
            let of_g = by.of(rank).as_slice();
            engine::GradientIntegers { rank: &mut part.ranks[rank], normalization, of_x, of_g }
        });
        engine::gradient_integers(device, ranks.collect())
    });
    let gathered = gathered.await?;
    Ok(by_part(parts, gathered))
}
