//! Both halves of a pass at once, where all ranks of a group are in host memory and nobody else is to be heard.

use half::{bf16, f16};

use super::host::{layer, slice, slice_mut, threads, words, words_mut};
use super::{Layer, Mask, Upstream, View};
use crate::dtype::{DType, Element};
use crate::host;
use crate::stats::{Centering, ChannelStats, GradCentering, GradientSums, Normalization};
use crate::tensor::{HostValues, Storage, Tensor};

/// A rank of forward.
pub(crate) struct ForwardRank<'a> {
    pub x: View<'a>,
    pub residual: Option<&'a Tensor>,
    pub layer: Layer<'a>,
    pub y: &'a mut Tensor,
    /// Empty; is filled.
    pub mask: Option<&'a mut Mask>,
}

/// Statistics, `local[rank][channel]`, and y of every rank, the same bits as of the separate phases; `None`, with nothing
/// written, where those are better. `center` merges what the ranks have of some channels.
pub(crate) fn forward(
    ranks: &mut [ForwardRank<'_>],
    center: impl Fn(&[Vec<ChannelStats>]) -> Vec<Centering> + Sync,
) -> Option<Vec<Vec<ChannelStats>>> {
    let dtype = ranks.first()?.x.tensor.dtype();
    match dtype {
        DType::F32 => forward_of::<f32>(ranks, center),
        DType::F16 => forward_of::<f16>(ranks, center),
        DType::BF16 => forward_of::<bf16>(ranks, center),
    }
}

fn forward_of<T: Element>(
    ranks: &mut [ForwardRank<'_>],
    center: impl Fn(&[Vec<ChannelStats>]) -> Vec<Centering> + Sync,
) -> Option<Vec<Vec<ChannelStats>>> {
    let threads = threads(ranks.first()?.x.tensor.device().kind()).clone();
    if ranks.iter().any(|rank| rank.x.tensor.dtype() != T::DTYPE || rank.y.dtype() != T::DTYPE) {
        return None;
    }
    let mut ranks: Vec<_> = ranks.iter_mut().map(forward_rank::<T>).collect::<Option<_>>()?;
    host::forward(&mut ranks, center, &threads)
}

fn forward_rank<'r, T: Element>(rank: &'r mut ForwardRank<'_>) -> Option<host::ForwardRank<'r, T, T>> {
    let (x, shape, residual) = (slice(rank.x.tensor)?, rank.x.shape, rank.residual.and_then(slice));
    let mask = match &mut rank.mask {
        Some(mask) => Some(words_mut(mask)?),
        None => None,
    };
    Some(host::ForwardRank { x, shape, residual, layer: layer(rank.layer), y: slice_mut(host_values(rank.y)?)?, mask })
}

/// A rank of backward.
pub(crate) struct BackwardRank<'a> {
    pub g: View<'a>,
    pub upstream: Upstream<'a>,
    pub layer: Layer<'a>,
    pub dx: &'a mut Tensor,
    pub grad_residual: Option<&'a mut Tensor>,
}

/// Gradient sums, `local[rank][channel]`, and gradients of every rank, as [`forward`]. `finish` merges the sums of some
/// channels, for which it gets the normalization too.
pub(crate) fn backward(
    ranks: &mut [BackwardRank<'_>],
    normalization: &Normalization,
    finish: impl Fn(&Normalization, &[Vec<GradientSums>]) -> Vec<GradCentering> + Sync,
) -> Option<Vec<Vec<GradientSums>>> {
    match ranks.first()?.upstream.x.tensor.dtype() {
        DType::F32 => backward_of::<f32>(ranks, normalization, finish),
        DType::F16 => backward_of::<f16>(ranks, normalization, finish),
        DType::BF16 => backward_of::<bf16>(ranks, normalization, finish),
    }
}

fn backward_of<T: Element>(
    ranks: &mut [BackwardRank<'_>],
    normalization: &Normalization,
    finish: impl Fn(&Normalization, &[Vec<GradientSums>]) -> Vec<GradCentering> + Sync,
) -> Option<Vec<Vec<GradientSums>>> {
    let threads = threads(ranks.first()?.upstream.x.tensor.device().kind()).clone();
    let mut ranks: Vec<_> = ranks.iter_mut().map(backward_rank::<T>).collect::<Option<_>>()?;
    host::backward(&mut ranks, normalization, finish, &threads)
}

fn backward_rank<'r, T: Element>(rank: &'r mut BackwardRank<'_>) -> Option<host::BackwardRank<'r, T, T>> {
    let Upstream { x, residual, mask } = rank.upstream;
    let g = host::GradOutput { values: slice(rank.g.tensor)?, shape: rank.g.shape };
    let (values, residual, mask) = (slice(x.tensor)?, residual.and_then(slice), mask.and_then(words));
    let upstream = host::Upstream { x: values, shape: x.shape, residual, mask };
    let grad_residual = match &mut rank.grad_residual {
        Some(target) => Some(slice_mut(host_values(target)?)?),
        None => None,
    };
    Some(host::BackwardRank {
        g,
        upstream,
        layer: layer(rank.layer),
        dx: slice_mut(host_values(rank.dx)?)?,
        grad_residual,
    })
}

fn host_values(tensor: &mut Tensor) -> Option<&mut HostValues> {
    match tensor.storage_mut() {
        Storage::Host(values) => Some(values),
        Storage::Gpu(_) => None,
    }
}
