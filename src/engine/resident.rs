//! Whole passes on one GPU: the ranks' sums merge on the device, so that one submission does all and nothing is read back.
//!
//! Everything that can fail comes before the first command is recorded. What calls keep stays on the device.

mod backward;
mod forward;
mod running;
mod shares;

pub(crate) use backward::{BackwardRank, backward};
pub(crate) use forward::{ForwardRank, Normalizer, forward};
pub(crate) use running::Running;
pub(crate) use shares::Shares;

use std::sync::Arc;

use super::gpu::record_sums;
use super::misplaced_on;
use crate::device::{Device, Kind};
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Recorder};
use crate::plan::{Merge, Role, SumsPlan, finalizing_variants};
use crate::stats::{Centering, Normalization};
use crate::tensor::{Storage, Tensor};

/// Statistics of all ranks, or of one.
#[derive(Debug)]
struct Center {
    /// What normalizes, for backward too.
    centering: Lease,
    /// Mean and inverse deviation, (C) f32 each, for the application.
    mean: Lease,
    inv_std: Lease,
}

impl Center {
    fn new(scratch: Scratch<'_>, channels: usize) -> Result<Self, Error> {
        let take = |channel_bytes| scratch.take((channels * channel_bytes) as u64);
        let [mean, inv_std] = [take(size_of::<f32>())?, take(size_of::<f32>())?];
        Ok(Self { centering: take(size_of::<Centering>())?, mean, inv_std })
    }

    /// What a kernel writes.
    fn slice(&self, role: Role) -> &BufferSlice {
        match role {
            Role::Mean => &self.mean,
            Role::InvStd => &self.inv_std,
            _ => &self.centering,
        }
    }
}

/// What a forward call normalized with: on the device, for backward.
#[derive(Clone, Debug)]
pub(crate) struct Centers {
    merge: Merge,
    /// What the kernels are told of every rank.
    shares: BufferSlice,
    /// One for all ranks, or one for each.
    centers: Vec<Arc<Center>>,
    /// Whether the statistics are of the batch.
    of_batch: bool,
}

impl Centers {
    /// No later call uses their memory again.
    pub fn keep_out(&self) {
        let leases = self.centers.iter().flat_map(|center| [&center.centering, &center.mean, &center.inv_std]);
        leases.for_each(|lease| lease.set_comes_back(false));
    }

    /// The mean of every channel that a rank was normalized with, (C) f32: NaN where the channel is not finite.
    #[cfg_attr(not(test), expect(dead_code, reason = "no layer shows it yet"))]
    pub fn mean(&self, rank: usize) -> &BufferSlice {
        &self.center(rank).mean
    }

    /// 1/√(var + eps) of every channel, as [`mean`](Self::mean); 0 where var + eps is 0.
    #[cfg_attr(not(test), expect(dead_code, reason = "no layer shows it yet"))]
    pub fn inv_std(&self, rank: usize) -> &BufferSlice {
        &self.center(rank).inv_std
    }

    fn centering(&self, rank: usize) -> &BufferSlice {
        &self.center(rank).centering
    }

    fn center(&self, rank: usize) -> &Center {
        &self.centers[rank % self.centers.len()]
    }

    /// Brings to the host what normalized: one for all ranks, or one for each.
    pub async fn read(&self, device: &Device) -> Result<Vec<Normalization>, Error> {
        let gpu = gpu_of(device)?;
        let mut read = Vec::with_capacity(self.centers.len());
        for (rank, center) in self.centers.iter().enumerate() {
            let slice = &center.centering;
            let bytes = gpu.submit_and_read("reading statistics", device.deadline(), slice, |_| {}).await?;
            let centers: Vec<Centering> = bytemuck::pod_collect_to_vec(&bytes);
            let mean = centers.iter().map(|center| f64::from(center.pivot) + f64::from(center.rest)).collect();
            let inv_std = centers.iter().map(|center| center.inv_std.into()).collect();
            let batch_count = self.of_batch.then(|| self.merge.count_of(rank));
            read.push(Normalization { mean, inv_std, batch_count });
        }
        Ok(read)
    }
}

/// Memory of one call.
#[derive(Clone, Copy)]
struct Scratch<'a> {
    gpu: &'a Gpu,
    /// Whether the application submits the call: nobody knows when, so that no other call may use the memory.
    is_encoded: bool,
}

impl Scratch<'_> {
    fn take(&self, size_bytes: u64) -> Result<Lease, Error> {
        let lease = self.gpu.scratch(size_bytes)?;
        lease.set_comes_back(!self.is_encoded);
        Ok(lease)
    }
}

/// Sums over one rank, on their way to where those of all ranks lie.
struct Sums {
    plan: SumsPlan,
    /// `None` where each channel has a single tile.
    tiles: Option<Lease>,
    local: BufferSlice,
}

impl Sums {
    /// `None` for a rank without values.
    fn new(scratch: Scratch<'_>, plan: Option<SumsPlan>, local: BufferSlice) -> Result<Option<Self>, Error> {
        let Some(plan) = plan else { return Ok(None) };
        let tiles = plan.combine.as_ref().map(|_| scratch.take(plan.tiles_bytes)).transpose()?;
        Ok(Some(Self { plan, tiles, local }))
    }

    /// Records its kernels; `slice_of` tells all but the scratch.
    fn record<'s>(&'s self, recorder: &mut Recorder<'_>, slice_of: impl Fn(Role) -> &'s BufferSlice) {
        record_sums(recorder, &self.plan, self.tiles.as_deref(), &self.local, slice_of);
    }
}

/// Submits what `record` records, or leaves it with the application's encoder.
fn send(
    gpu: &Gpu,
    phase: &'static str,
    encoder: Option<&mut wgpu::CommandEncoder>,
    record: impl FnOnce(&mut Recorder<'_>),
) -> Result<(), Error> {
    match encoder {
        Some(encoder) => gpu.encode(phase, encoder, record),
        None => gpu.submit_now(phase, record),
    }
}

/// Compiles the kernels between the halves of a pass.
pub(crate) fn prepare(device: &Device) -> Result<(), Error> {
    gpu_of(device)?.build(finalizing_variants().into_iter())
}

fn gpu_of(device: &Device) -> Result<&Gpu, Error> {
    match device.kind() {
        Kind::Gpu(gpu) => Ok(gpu),
        Kind::Host(_) => Err(misplaced_on(device)),
    }
}

/// The slice of a tensor that will be written.
fn written(tensor: &mut Tensor) -> Result<BufferSlice, Error> {
    if let Storage::Gpu(slice) = tensor.storage_mut() {
        return Ok(slice.clone());
    }
    Err(misplaced_on(tensor.device()))
}

#[cfg(test)]
mod tests;
