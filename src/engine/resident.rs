//! Whole passes on one GPU: the ranks' sums merge on the device, so that one submission does all
//! and nothing is read back.
//!
//! Everything that can fail comes before the first command is recorded. What calls keep stays on
//! the device.

mod backward;
mod double;
mod exact;
mod forward;
mod rank_weights;
mod running;

pub(crate) use backward::backward;
pub(crate) use double::double_backward;
pub(crate) use forward::{ForwardPass, Normalizer, forward};
pub(crate) use rank_weights::RankWeights;
pub(crate) use running::{Running, RunningPlace};

use std::sync::Arc;

use super::Layer;
use super::gpu::{Slices, flags, record_sums};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Memory, Recorder};
use crate::plan::{
    Activation, ApplyPlan, CombineParams, Dispatch, Gradient, Merge, Role, SumsPlan,
    finalizing_variants,
};
use crate::shape::Shape;
use crate::stats::{Centering, PerRank};
use crate::tensor::Tensor;

/// Statistics of all ranks, or of one.
#[derive(Debug)]
struct Center {
    lease: Arc<Lease>,
    /// What normalizes, for backward too.
    centering: BufferSlice,
    /// Mean and inverse deviation, (C) f32 each, for the application.
    mean: BufferSlice,
    inv_std: BufferSlice,
    /// Grids, means and inverse deviations of sums of integers, for backward.
    grids: Option<Lease>,
}

impl Center {
    /// `grids_bytes` where the sums are of integers.
    fn new(
        gpu: &Gpu,
        memory: Option<&Memory>,
        channels: usize,
        grids_bytes: Option<u64>,
    ) -> Result<Self, Error> {
        let mut end = 0;
        let mut place = |channel_bytes: usize| {
            let start = u64::next_multiple_of(end, gpu.caps().offset_alignment_bytes.into());
            end = start + (channels * channel_bytes) as u64;
            start..end
        };
        let [centering, mean, inv_std] =
            [size_of::<Centering>(), size_of::<f32>(), size_of::<f32>()].map(&mut place);
        let lease = Arc::new(gpu.scratch_of(memory, end)?);
        let [centering, mean, inv_std] = [centering, mean, inv_std].map(|place| lease.part(place));
        let grids = grids_bytes.map(|bytes| gpu.scratch_of(memory, bytes)).transpose()?;
        Ok(Self { lease, centering, mean, inv_std, grids })
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
    /// The weight of every rank in the merge.
    rank_weights: BufferSlice,
    centers: PerRank<Arc<Center>>,
    /// Whether the statistics are of the batch.
    of_batch: bool,
}

impl Centers {
    /// Keeps their memory from later calls, unless it is of a workspace.
    pub fn retain(&self) {
        for center in self.centers.iter() {
            center.lease.retain();
            center.grids.iter().for_each(Lease::retain);
        }
    }

    /// Mean and 1/√(var + eps) of every channel, (C) f32 each: NaN where the channel is not finite.
    pub fn mean_and_inv_std(
        &self,
        device: &Device,
        gpu: &Gpu,
        channels: usize,
    ) -> PerRank<[Tensor; 2]> {
        self.centers.map(|center| {
            let Center { lease, mean, inv_std, .. } = &**center;
            [mean, inv_std].map(|slice| Tensor::of_channels(device, gpu, (lease, slice), channels))
        })
    }

    fn centering(&self, rank: usize) -> &BufferSlice {
        &self.centers.of(rank).centering
    }

    /// The grids of a rank's x, where its sums were of integers.
    fn grids(&self, rank: usize) -> Option<&BufferSlice> {
        self.centers.of(rank).grids.as_deref()
    }
}

/// Where a pass goes that is recorded and not submitted.
pub(crate) struct Encoding<'a> {
    /// The application's.
    pub encoder: &'a mut wgpu::CommandEncoder,
    /// What such passes use.
    pub memory: &'a Memory,
}

/// Sums over one rank, on their way to where those of all ranks lie.
struct Sums {
    plan: Box<SumsPlan>,
    /// What would combine the tiles, where what merges ranks does: it is not in the plan then.
    merging: Option<Dispatch<CombineParams>>,
    /// `None` where each channel has a single tile.
    tiles: Option<Lease>,
    local: BufferSlice,
}

impl Sums {
    /// `None` for a rank without values.
    fn new(
        gpu: &Gpu,
        memory: Option<&Memory>,
        plan: Option<Box<SumsPlan>>,
        local: BufferSlice,
    ) -> Result<Option<Self>, Error> {
        let Some(plan) = plan else { return Ok(None) };
        let tiles =
            plan.combine.as_ref().map(|_| gpu.scratch_of(memory, plan.tiles_bytes)).transpose()?;
        Ok(Some(Self { plan, merging: None, tiles, local }))
    }

    /// Those of every rank, of the plans in their order. What merges them takes the tiles of a rank
    /// that is alone.
    fn of_ranks(
        gpu: &Gpu,
        memory: Option<&Memory>,
        merge: &Merge,
        locals: &BufferSlice,
        plans: impl Iterator<Item = Option<Box<SumsPlan>>>,
    ) -> Result<Vec<Option<Self>>, Error> {
        let of_rank = |(rank, plan)| {
            let mut sums = Self::new(gpu, memory, plan, locals.part(merge.slot(rank)))?;
            for sums in sums.iter_mut().filter(|_| merge.takes_tiles()) {
                sums.merging = sums.plan.combine.take();
            }
            Ok(sums)
        };
        plans.enumerate().map(of_rank).collect()
    }

    /// Records its kernels.
    fn record(&self, recorder: &mut Recorder<'_>, slices: Slices<'_>) {
        record_sums(recorder, &self.plan, self.tiles.as_deref(), &self.local, |role| {
            slices.role(role)
        });
    }
}

/// What would combine the tiles of the only rank, and where they lie.
fn merging(sums: &[Option<Sums>]) -> Option<(&Dispatch<CombineParams>, &BufferSlice)> {
    let [Some(Sums { merging: Some(combine), tiles: Some(tiles), .. })] = sums else { return None };
    Some((combine, tiles))
}

/// Submits what `record` records, or leaves it with the application's encoder.
fn send(
    gpu: &Gpu,
    phase: &'static str,
    encoding: Option<Encoding<'_>>,
    record: impl FnOnce(&mut Recorder<'_>),
) -> Result<(), Error> {
    match encoding {
        Some(Encoding { encoder, .. }) => gpu.encode(phase, encoder, record),
        None => gpu.submit_now(phase, record),
    }
}

/// Compiles the kernels between the halves of a pass, and those that take their place where there
/// is a single rank whose channels have one tile each.
pub(crate) fn prepare(
    gpu: &Gpu,
    shape: &Shape,
    dtype: DType,
    layer: Layer<'_>,
    keeps_mask: bool,
) -> Result<(), Error> {
    let x = Activation { shape, dtype };
    let caps = gpu.caps();
    let mut variants = finalizing_variants(layer.reproducible);
    let flags = flags(gpu, x, layer, keeps_mask);
    let residual = layer.epilogue.adds_residual();
    let gradient = Gradient { batch_statistics: true, residual, in_place: false };
    let mut passes = vec![(
        SumsPlan::gradient(x, x, caps, flags)?,
        ApplyPlan::gradient(x, x, caps, flags, gradient)?,
    )];
    if !layer.reproducible {
        let normalize = ApplyPlan::normalize(x, dtype, caps, flags, false)?;
        passes.push((SumsPlan::statistics(x, caps)?, normalize));
    }
    for (sums, apply) in &passes {
        variants.extend(sums.iter().flat_map(|sums| sums.finishing_variants(apply.as_ref())));
    }
    gpu.build(variants.into_iter())
}
