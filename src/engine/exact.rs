//! Sums of integers on one device, whichever it is: ranges first, then sums.

use futures::future::{FutureExt, ready};

use super::{BackwardRank, ForwardRank, gpu, host};
use crate::device::{Device, Kind};
use crate::error::Error;
use crate::gpu::Pending;
use crate::stats::{GridParams, IntegerSums, Normalization, ValueRange};

/// One rank whose gradients are summed as integers.
pub(crate) struct GradientIntegers<'r, 'a> {
    pub rank: &'r mut BackwardRank<'a>,
    pub normalization: &'r Normalization,
    /// Grids of x, by channel.
    pub of_x: Vec<GridParams>,
    /// Those of the gradients.
    pub of_g: &'r [GridParams],
}

/// The range of every channel of x, `[rank][channel]`, of ranks of several layers on one device. A
/// GPU has its work, one submission, when this returns; the host is done.
pub(crate) fn ranges(
    device: &Device,
    ranks: Vec<&mut ForwardRank<'_>>,
) -> Result<Pending<Vec<Vec<ValueRange>>>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::ranges(gpu, device.deadline(), ranks),
        Kind::Host(threads) => {
            let ranges = ranks.iter().map(|rank| host::ranges(rank, threads)).collect();
            Ok(ready(Ok(ranges)).boxed())
        }
    }
}

/// Sums of the integers of x, or with `rests` of their rounding errors, as [`ranges`].
pub(crate) fn integers(
    device: &Device,
    ranks: Vec<(&mut ForwardRank<'_>, &[GridParams])>,
    rests: bool,
) -> Result<Pending<Vec<Vec<IntegerSums<true>>>>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::integers(gpu, device.deadline(), ranks, rests),
        Kind::Host(threads) => {
            let sums = ranks.iter().map(|(rank, grids)| {
                let count = rank.shape.values_per_channel();
                with_counts(host::integers(rank, grids, rests, threads), count)
            });
            Ok(ready(Ok(sums.collect())).boxed())
        }
    }
}

/// The range of every channel of the gradients before the activation, as [`ranges`].
pub(crate) fn gradient_ranges(
    device: &Device,
    ranks: Vec<(&mut BackwardRank<'_>, &Normalization)>,
) -> Result<Pending<Vec<Vec<ValueRange>>>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::gradient_ranges(gpu, device.deadline(), ranks),
        Kind::Host(threads) => {
            let ranges = ranks
                .into_iter()
                .map(|(rank, normalization)| host::gradient_ranges(rank, normalization, threads));
            Ok(ready(Ok(ranges.collect::<Result<_, Error>>()?)).boxed())
        }
    }
}

/// Sums of the integers of the gradients, and of their products with those of x, as [`ranges`].
pub(crate) fn gradient_integers(
    device: &Device,
    ranks: Vec<GradientIntegers<'_, '_>>,
) -> Result<Pending<Vec<Vec<IntegerSums<false>>>>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::gradient_integers(gpu, device.deadline(), ranks),
        Kind::Host(threads) => {
            let sums =
                ranks.into_iter().map(|GradientIntegers { rank, normalization, of_x, of_g }| {
                    let count = rank.shape.values_per_channel();
                    let sums =
                        host::gradient_integers(rank, normalization, [&of_x, of_g], threads)?;
                    Ok(with_counts(sums, count))
                });
            Ok(ready(Ok(sums.collect::<Result<_, Error>>()?)).boxed())
        }
    }
}

/// Sums over so many values of each channel.
pub(super) fn with_counts<const STATISTICS: bool>(
    sums: Vec<[i128; 2]>,
    count: u64,
) -> Vec<IntegerSums<STATISTICS>> {
    sums.into_iter().map(|sums| IntegerSums { count, sums }).collect()
}
