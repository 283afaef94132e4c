//! Passes that write their outputs while the summed values are in the cache.

use super::{backward, forward};
use crate::device::{Device, Kind};
use crate::dtype::{DType, with_element};
use crate::engine::{BackwardRank, ForwardRank};
use crate::host::{self, Threads};
use crate::stats::exact::{ExactGradients, ExactStatistics};
use crate::stats::{Centering, GradCentering, GradientSums, Grid, Moments, Normalization};
use crate::tensor::Tensor;

/// The threads of the host and the one type of all activations; `None` where there are others.
fn alike(
    device: &Device,
    dtype: DType,
    mut ranks: impl Iterator<Item = Option<[DType; 2]>>,
) -> Option<&Threads> {
    let Kind::Host(threads) = device.kind() else { return None };
    ranks.all(|of| of == Some([dtype; 2])).then_some(threads)
}

fn forward_alike<'d>(
    device: &'d Device,
    ranks: &[ForwardRank<'_>],
) -> Option<(DType, &'d Threads)> {
    let dtype = ranks.first()?.x?.dtype();
    let types = ranks.iter().map(|rank| {
        let y = rank.y.as_deref().map(Tensor::dtype);
        Some([rank.x?.dtype(), y?])
    });
    Some((dtype, alike(device, dtype, types)?))
}

/// Of passes that are not in place.
fn backward_alike<'d>(
    device: &'d Device,
    ranks: &[BackwardRank<'_>],
) -> Option<(DType, &'d Threads)> {
    let dtype = ranks.first()?.x.dtype();
    let types = ranks.iter().map(|rank| {
        let is_written = rank.grad_input.is_some();
        rank.g.filter(|_| is_written).map(|g| [rank.x.dtype(), g.dtype()])
    });
    Some((dtype, alike(device, dtype, types)?))
}

/// Statistics, `local[rank][channel]`, and y of every rank of one layer at once, the same bits as
/// of the separate steps; `None`, with nothing written, where those are better. `center` merges
/// what the ranks have of some channels.
pub(crate) fn forward_fused(
    device: &Device,
    ranks: &mut [ForwardRank<'_>],
    center: impl Fn(&[Vec<Moments>]) -> Vec<Centering> + Sync,
) -> Option<Vec<Vec<Moments>>> {
    let (dtype, threads) = forward_alike(device, ranks)?;
    with_element!(dtype, T => {
        let mut ranks: Vec<_> = ranks.iter_mut().map(forward::<T, T>).collect();
        host::forward(&mut ranks, center, threads)
    })
}

/// The same with sums of integers. `center` gives the parameters of some channels.
pub(crate) fn forward_exact(
    device: &Device,
    ranks: &mut [ForwardRank<'_>],
    center: impl Fn(&[Moments]) -> Vec<Centering> + Sync,
) -> Option<ExactStatistics> {
    let (dtype, threads) = forward_alike(device, ranks)?;
    with_element!(dtype, T => {
        let mut ranks: Vec<_> = ranks.iter_mut().map(forward::<T, T>).collect();
        host::forward_exact(&mut ranks, center, threads)
    })
}

/// Gradient sums, `local[rank][channel]`, and gradients of every rank, as [`forward_fused`].
/// `finish` merges the sums of some channels, for which it gets the normalization too.
pub(crate) fn backward_fused(
    device: &Device,
    ranks: &mut [BackwardRank<'_>],
    normalization: &Normalization,
    finish: impl Fn(&Normalization, &[Vec<GradientSums>]) -> Vec<GradCentering> + Sync,
) -> Option<Vec<Vec<GradientSums>>> {
    let (dtype, threads) = backward_alike(device, ranks)?;
    with_element!(dtype, T => {
        let mut ranks: Vec<_> = ranks.iter_mut().map(backward::<T, T>).collect();
        host::backward(&mut ranks, normalization, finish, threads)
    })
}

/// The same with sums of integers, of x by its grids. `finish` gives the parameters of some
/// channels.
pub(crate) fn backward_exact(
    device: &Device,
    ranks: &mut [BackwardRank<'_>],
    normalization: &Normalization,
    of_x: &[Grid],
    finish: impl Fn(&Normalization, &[GradientSums]) -> Vec<GradCentering> + Sync,
) -> Option<ExactGradients> {
    let (dtype, threads) = backward_alike(device, ranks)?;
    with_element!(dtype, T => {
        let mut ranks: Vec<_> = ranks.iter_mut().map(backward::<T, T>).collect();
        host::backward_exact(&mut ranks, normalization, of_x, finish, threads)
    })
}
