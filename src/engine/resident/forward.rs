//! Forward: sums of every rank, their merge, the running statistics, the outputs.

use std::sync::Arc;

use super::super::{Layer, Mask, Source, device_slice, gpu};
use super::{Center, Centers, Running, Scratch, Shares, Sums, gpu_of, send, written};
use crate::device::Device;
use crate::error::Error;
use crate::gpu::BufferSlice;
use crate::plan::{ApplyPlan, Following, Merge, Role, SumsPlan};
use crate::tensor::Tensor;

/// What a forward call reads and writes on one rank.
pub(crate) struct ForwardRank<'a> {
    pub x: Source<'a>,
    pub residual: Option<&'a Tensor>,
    pub layer: Layer<'a>,
    pub y: &'a mut Tensor,
    /// Filled where there is one.
    pub mask: Option<&'a Mask>,
}

/// What a call normalizes with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Normalizer {
    /// The statistics of the batch, of each rank `apart` or of all; the running ones may follow.
    Batch { apart: bool, following: Option<Following> },
    /// The running statistics.
    Running,
}

/// A rank whose plans are made and whose memory is there.
struct Prepared<'a> {
    /// `None` where y is written over it.
    x: Option<&'a BufferSlice>,
    residual: Option<&'a BufferSlice>,
    layer: gpu::Layer<'a>,
    y: BufferSlice,
    sums: Option<Sums>,
    apply: Option<ApplyPlan>,
}

/// Records and, without an encoder of the application, submits a whole forward pass over ranks with `channels` channels.
pub(crate) fn forward(
    device: &Device,
    ranks: Vec<ForwardRank<'_>>,
    channels: usize,
    (eps, normalizer): (f64, Normalizer),
    (running, shares): (&Running, &Shares),
    encoder: Option<&mut wgpu::CommandEncoder>,
) -> Result<Centers, Error> {
    let gpu = gpu_of(device)?;
    let scratch = Scratch { gpu, is_encoded: encoder.is_some() };
    let (of_batch, apart) = match normalizer {
        Normalizer::Batch { apart, .. } => (true, apart),
        Normalizer::Running => (false, false),
    };
    let counts = ranks.iter().map(|rank| rank.x.shape().values_per_channel()).collect();
    let merge = Merge::new(counts, channels, apart, gpu.caps())?;
    let results = 0..merge.results();
    let all = results.map(|_| Center::new(scratch, channels).map(Arc::new)).collect::<Result<_, _>>()?;
    let shares = shares.of(gpu, &merge)?;
    let centers = Centers { merge, shares, centers: all, of_batch };
    let merge = &centers.merge;
    // Running statistics are there without a sum.
    let locals = of_batch.then(|| scratch.take(merge.bytes())).transpose()?;
    let locals = locals.as_deref().unwrap_or(gpu.spare(0));
    let mut prepared = Vec::with_capacity(ranks.len());
    for (index, rank) in ranks.into_iter().enumerate() {
        let (x, layer) = (rank.x.activation(rank.y.dtype()), gpu::Layer::of(rank.layer, rank.mask));
        let plan = if of_batch { SumsPlan::statistics(x, gpu.caps())? } else { None };
        prepared.push(Prepared {
            x: device_slice(rank.x.tensor()),
            residual: device_slice(rank.residual),
            layer,
            sums: Sums::new(scratch, plan, locals.part(merge.slot(index)))?,
            apply: ApplyPlan::normalize(
                x,
                rank.y.dtype(),
                gpu.caps(),
                layer.flags(),
                matches!(rank.x, Source::Over(_)),
            )?,
            y: written(rank.y)?,
        });
    }
    send(gpu, "forward", encoder, |recorder| {
        for rank in &prepared {
            rank.sums.iter().for_each(|sums| sums.record(recorder, |_| rank.x.unwrap_or(&rank.y)));
        }
        for (result, center) in centers.centers.iter().enumerate() {
            let dispatch = match normalizer {
                Normalizer::Batch { following, .. } => merge.statistics(result, eps, following),
                Normalizer::Running => merge.running(eps),
            };
            recorder.dispatch(&dispatch, |role| match role {
                Role::Locals => locals,
                Role::Shares => &centers.shares,
                Role::Running => running.slice(),
                _ => center.slice(role),
            });
        }
        for (index, rank) in prepared.iter().enumerate() {
            let slice_of = |role| match role {
                Role::Input => rank.x.unwrap_or(gpu.spare(3)),
                Role::Output => &rank.y,
                _ => rank.layer.slice(gpu, role, rank.residual).unwrap_or(centers.centering(index)),
            };
            let dispatches = rank.apply.iter().flat_map(|plan| &plan.dispatches);
            dispatches.for_each(|dispatch| recorder.dispatch(dispatch, slice_of));
        }
    })?;
    Ok(centers)
}
