//! The steps of a pass on one device, whichever it is: sums before the exchange, outputs after it.
//!
//! Takes ranks ([`ForwardRank`], [`BackwardRank`]) whose tensors the layer has checked, and whose
//! plans are made. Merging over ranks happens elsewhere.

mod accumulate;
mod double;
mod exact;
#[cfg_attr(not(feature = "gpu"), path = "engine/gpu/absent.rs")]
mod gpu;
#[cfg_attr(not(feature = "host"), path = "engine/host/absent.rs")]
mod host;
mod mask;
mod rank;
#[cfg_attr(not(feature = "gpu"), path = "engine/resident/absent.rs")]
pub(crate) mod resident;

pub(crate) use accumulate::accumulate;
pub(crate) use double::{DoublePair, DoubleRank, double_gradients, double_sums};
pub(crate) use exact::{GradientIntegers, gradient_integers, gradient_ranges, integers, ranges};
pub(crate) use gpu::Ahead;
pub(crate) use host::{backward_exact, backward_fused, forward_exact, forward_fused};
pub(crate) use mask::Mask;
pub(crate) use rank::{BackwardRank, ForwardRank, Kept, Layer, Steps};

use futures::future::{FutureExt, ready};

use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::error::Error;
use crate::gpu::Pending;
use crate::plan::Activation;
use crate::shape::Shape;
use crate::stats::{Centering, GradCentering, GradientSums, Moments, Normalization};

/// Compiles the pipelines of forward and backward over an activation, for a single storage type.
pub(crate) fn prepare(
    device: &Device,
    shape: &Shape,
    dtype: DType,
    layer: Layer<'_>,
    keeps_mask: bool,
) -> Result<(), Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::prepare(gpu, Activation { shape, dtype }, layer, keeps_mask),
        Kind::Host(_) => Ok(()),
    }
}

/// Local statistics, `[rank][channel]`, of ranks of several layers on one device. A GPU has its
/// work, one submission, when this returns; the host is done.
pub(crate) fn statistics(
    device: &Device,
    ranks: Vec<&mut ForwardRank<'_>>,
) -> Result<Pending<Vec<Vec<Moments>>>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::statistics(gpu, device.deadline(), ranks),
        Kind::Host(threads) => {
            Ok(ready(Ok(ranks.iter().map(|rank| host::statistics(rank, threads)).collect()))
                .boxed())
        }
    }
}

/// Records the commands that [`normalize`] submits, while the statistics are computed. On the host
/// it does nothing.
pub(crate) fn record_normalize<'r, 'a: 'r>(
    device: &Device,
    ranks: impl Iterator<Item = &'r ForwardRank<'a>>,
) -> Result<Option<Ahead>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::record_normalize(gpu, ranks).map(Some),
        Kind::Host(_) => Ok(None),
    }
}

/// y = act(normalized x + residual) of ranks of several layers on one device; masks are filled.
/// `ahead` has the recorded commands of the same ranks.
pub(crate) fn normalize(
    device: &Device,
    ranks: Vec<(&mut ForwardRank<'_>, &[Centering])>,
    ahead: Option<Ahead>,
) -> Result<Pending<()>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::normalize(gpu, ranks, ahead),
        Kind::Host(threads) => {
            let normalized = ranks
                .into_iter()
                .try_for_each(|(rank, centering)| host::normalize(rank, centering, threads));
            normalized.map(|()| ready(Ok(())).boxed())
        }
    }
}

/// Local gradient sums, `[rank][channel]`, of ranks of several layers on one device, each of the
/// activation's input.
pub(crate) fn gradient_sums(
    device: &Device,
    ranks: Vec<(&mut BackwardRank<'_>, &Normalization)>,
) -> Result<Pending<Vec<Vec<GradientSums>>>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::gradient_sums(gpu, device.deadline(), ranks),
        Kind::Host(threads) => {
            let sums = |(rank, normalization): (&mut BackwardRank<'_>, _)| {
                host::gradient_sums(rank, normalization, threads)
            };
            let sums = ranks.into_iter().map(sums).collect::<Result<_, Error>>()?;
            Ok(ready(Ok(sums)).boxed())
        }
    }
}

/// Records the commands that [`input_gradients`] submits, while the sums are computed. On the host
/// it does nothing.
pub(crate) fn record_input_gradients<'r, 'a: 'r>(
    device: &Device,
    ranks: impl Iterator<Item = &'r BackwardRank<'a>>,
) -> Result<Option<Ahead>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::record_input_gradients(gpu, ranks).map(Some),
        Kind::Host(_) => Ok(None),
    }
}

/// The gradients of x and of the residual, where they are wanted, of ranks of several layers on one
/// device. `ahead` has the recorded commands of the same ranks.
pub(crate) fn input_gradients(
    device: &Device,
    ranks: Vec<(&mut BackwardRank<'_>, &[GradCentering])>,
    ahead: Option<Ahead>,
) -> Result<Pending<()>, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::input_gradients(gpu, ranks, ahead),
        Kind::Host(threads) => {
            let written = ranks
                .into_iter()
                .try_for_each(|(rank, centering)| host::input_gradients(rank, centering, threads));
            written.map(|()| ready(Ok(())).boxed())
        }
    }
}
