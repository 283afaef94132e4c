//! The phases on a GPU: plans carried out.

mod many;
mod range;
mod slices;

pub(super) use many::{apply_many, local_stats_many};
pub(super) use slices::{Layer, Reads, backward_slice};

use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use futures::future::{FutureExt, ready};

use crate::dtype::DType;
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Pending, Recorder};
use crate::plan::{Activation, ApplyPlan, CHANNEL_SUMS_BYTES, Gradient, LayerFlags, Role, SumsPlan, accumulation};
use crate::stats::{Centering, ChannelStats, GradCentering, GradientSums, Normalization};

pub(super) fn check_limits(gpu: &Gpu, x: Activation<'_>) -> Result<(), Error> {
    SumsPlan::statistics(x, gpu.caps())?;
    ApplyPlan::normalize(x, x.dtype, gpu.caps(), LayerFlags::default(), false)?;
    Ok(())
}

pub(super) fn prepare(gpu: &Gpu, x: Activation<'_>, layer: super::Layer<'_>, keeps_mask: bool) -> Result<(), Error> {
    let mask = if keeps_mask { ApplyPlan::mask_order(x, x.dtype, gpu.caps()) } else { None };
    let flags = LayerFlags { mask, ..Layer::of(layer, None).flags() };
    // After training, and after evaluation.
    let gradient = |batch_statistics| {
        let wanted = Gradient { batch_statistics, residual: layer.epilogue.adds_residual(), in_place: false };
        ApplyPlan::gradient(x, x, gpu.caps(), flags, wanted)
    };
    let sums = [SumsPlan::statistics(x, gpu.caps())?, SumsPlan::gradient(x, x, gpu.caps(), flags)?];
    let normalize = ApplyPlan::normalize(x, x.dtype, gpu.caps(), flags, false)?;
    let applies = [normalize, gradient(true)?, gradient(false)?];
    let sums = sums.iter().flatten().flat_map(|plan| {
        let partials = plan.partials.iter().map(|partial| partial.variant);
        partials.chain(plan.combine.iter().map(|combine| combine.variant))
    });
    let applies = applies.iter().flatten().flat_map(|plan| plan.dispatches.iter().map(|dispatch| dispatch.variant));
    let accumulates = accumulation(x.shape.channels(), gpu.caps())?.variant;
    gpu.build(sums.chain(applies).chain([accumulates]))
}

pub(super) fn local_stats(
    gpu: &Gpu,
    deadline: Duration,
    slice: &BufferSlice,
    x: Activation<'_>,
    eps: f64,
) -> Result<Pending<Vec<ChannelStats>>, Error> {
    let Some(plan) = SumsPlan::statistics(x, gpu.caps())? else {
        return Ok(ready(Ok(vec![ChannelStats::EMPTY; x.shape.channels()])).boxed());
    };
    let sums = sums_per_channel(gpu, deadline, "local statistics", &plan, None, |_| slice)?;
    let count = x.shape.values_per_channel();
    let again = statistics_again(gpu, deadline, slice, plan);
    Ok(async move { range::statistics(sums.await?, count, eps, again).await }.boxed())
}

/// Takes the sums of a plan for statistics again in other units.
fn statistics_again(gpu: &Gpu, deadline: Duration, slice: &BufferSlice, plan: SumsPlan) -> range::Again {
    let (gpu, slice) = (gpu.clone(), slice.clone());
    Arc::new(move |unit| {
        let plan = plan.in_units(unit);
        sums_per_channel(&gpu, deadline, "local statistics in other units", &plan, None, |_| &slice)
    })
}

pub(super) fn local_gradient_sums(
    gpu: &Gpu,
    deadline: Duration,
    reads: Reads<'_>,
    normalization: &Normalization,
    layer: Layer<'_>,
) -> Result<Pending<Vec<GradientSums>>, Error> {
    let (x, g) = (reads.x.1, reads.g_activation);
    let Some(plan) = SumsPlan::gradient(x, g, gpu.caps(), layer.flags())? else {
        return Ok(ready(Ok(vec![GradientSums::EMPTY; x.shape.channels()])).boxed());
    };
    let centering = normalization.centering();
    let sums = {
        let centering = Upload::new(gpu, &centering)?;
        let slice_of = |role| backward_slice(gpu, role, reads, &centering.lease, layer);
        sums_per_channel(gpu, deadline, "local gradient sums", &plan, Some(&centering), slice_of)?
    };
    // Σ g·(x − pivot) counts in the units of x and of the rest.
    let units: Vec<f64> = centering.iter().map(|center| center.unit.into()).collect();
    let channels = units.into_iter().zip(normalization.rest().collect::<Vec<f64>>());
    let again = gradient_sums_again(gpu, deadline, reads, centering, layer, plan);
    let of_channel = |([sum_dy, sum_dy_x, g_flag, x_flag], (unit, rest)): ([f64; 4], (f64, f64))| {
        // Each flag makes NaN what its values enter, whatever the driver made of them.
        let nan_if = |flag: f64| if flag != 0.0 { f64::NAN } else { 0.0 };
        GradientSums::from_pivot(sum_dy + nan_if(g_flag), (sum_dy_x + nan_if(x_flag)) / unit, rest)
    };
    Ok(async move {
        let sums = range::gradient_sums(sums.await?, again).await?;
        Ok(sums.into_iter().zip(channels).map(of_channel).collect())
    }
    .boxed())
}

/// Takes the sums of a plan for gradients again in other units.
fn gradient_sums_again(
    gpu: &Gpu,
    deadline: Duration,
    reads: Reads<'_>,
    centering: Vec<Centering>,
    layer: Layer<'_>,
    plan: SumsPlan,
) -> range::Again {
    let gpu = gpu.clone();
    let spare = gpu.spare(0).clone();
    // What is bound but for what this submission makes itself.
    let roles = plan.partials.iter().take(1).flat_map(|partial| partial.variant.bindings());
    let bound: Vec<(Role, BufferSlice)> =
        roles.map(|binding| (binding.role, backward_slice(&gpu, binding.role, reads, &spare, layer).clone())).collect();
    Arc::new(move |unit| {
        let plan = plan.in_units(unit);
        let centering = Upload::new(&gpu, &centering)?;
        let slice_of = |role| match bound.iter().find(|(of, _)| *of == role) {
            Some((_, slice)) if role != Role::Centering => slice,
            _ => &centering.lease,
        };
        sums_per_channel(&gpu, deadline, "local gradient sums in other units", &plan, Some(&centering), slice_of)
    })
}

/// Runs both kernels of a plan and reads back four numbers per channel, `upload` sent before. `slice_of` tells all but the
/// scratch.
fn sums_per_channel<'s>(
    gpu: &Gpu,
    deadline: Duration,
    phase: &'static str,
    plan: &SumsPlan,
    upload: Option<&Upload<'_>>,
    slice_of: impl Fn(Role) -> &'s BufferSlice,
) -> Result<Pending<Vec<[f32; 4]>>, Error> {
    let tiles = plan.combine.as_ref().map(|_| gpu.scratch(plan.tiles_bytes)).transpose()?;
    let local = gpu.scratch(plan.local_bytes)?;
    let bytes = gpu.submit_and_read(phase, deadline, &local, |recorder| {
        if let Some(upload) = upload {
            upload.send(recorder);
        }
        record_sums(recorder, plan, tiles.as_deref(), &local, slice_of);
    });
    Ok(async move { Ok(sums_of(&bytes.await?)) }.boxed())
}

/// Records both kernels of a plan. `slice_of` tells all but the scratch.
pub(super) fn record_sums<'s>(
    recorder: &mut Recorder<'_>,
    plan: &SumsPlan,
    tiles: Option<&BufferSlice>,
    local: &BufferSlice,
    slice_of: impl Fn(Role) -> &'s BufferSlice,
) {
    let slice_of = |role| match role {
        Role::Tiles => tiles.unwrap_or(local),
        Role::Local => local,
        _ => slice_of(role),
    };
    plan.partials.iter().for_each(|partial| recorder.dispatch(partial, slice_of));
    plan.combine.iter().for_each(|combine| recorder.dispatch(combine, slice_of));
}

/// Four numbers per channel.
fn sums_of(bytes: &[u8]) -> Vec<[f32; 4]> {
    bytes.chunks_exact(CHANNEL_SUMS_BYTES as usize).map(bytemuck::pod_read_unaligned).collect()
}

/// Without a slice of x, y is written over it.
pub(super) fn apply(
    gpu: &Gpu,
    (slice, x): (Option<&BufferSlice>, Activation<'_>),
    residual: Option<&BufferSlice>,
    centering: &[Centering],
    layer: Layer<'_>,
    y: (&BufferSlice, DType),
) -> Result<Pending<()>, Error> {
    let Some(normalizing) = Normalizing::new(gpu, (slice, x), residual, centering, layer, y)? else {
        return Ok(ready(Ok(())).boxed());
    };
    Ok(gpu.submit("normalize", |recorder| normalizing.record(gpu, recorder)))
}

/// A normalization that is ready to be recorded.
pub(super) struct Normalizing<'a> {
    plan: ApplyPlan,
    x: Option<&'a BufferSlice>,
    residual: Option<&'a BufferSlice>,
    centering: Upload<'a>,
    layer: Layer<'a>,
    y: &'a BufferSlice,
}

impl<'a> Normalizing<'a> {
    /// `None` where x has no value.
    fn new(
        gpu: &Gpu,
        (slice, x): (Option<&'a BufferSlice>, Activation<'_>),
        residual: Option<&'a BufferSlice>,
        centering: &'a [Centering],
        layer: Layer<'a>,
        (y, y_dtype): (&'a BufferSlice, DType),
    ) -> Result<Option<Self>, Error> {
        let Some(plan) = ApplyPlan::normalize(x, y_dtype, gpu.caps(), layer.flags(), slice.is_none())? else {
            return Ok(None);
        };
        let centering = Upload::new(gpu, centering)?;
        Ok(Some(Self { plan, x: slice, residual, centering, layer, y }))
    }

    fn record(&self, gpu: &Gpu, recorder: &mut Recorder<'_>) {
        self.centering.send(recorder);
        let slice_of = |role| match role {
            Role::Input => self.x.unwrap_or(gpu.spare(3)),
            Role::Output => self.y,
            _ => self.layer.slice(gpu, role, self.residual).unwrap_or(&self.centering.lease),
        };
        self.plan.dispatches.iter().for_each(|dispatch| recorder.dispatch(dispatch, slice_of));
    }
}

pub(super) fn grad_input(
    gpu: &Gpu,
    reads: Reads<'_>,
    batch_statistics: bool,
    centering: &[GradCentering],
    layer: Layer<'_>,
    (dx, grad_residual): (&BufferSlice, Option<&BufferSlice>),
) -> Result<Pending<()>, Error> {
    let (x, g) = (reads.x.1, reads.g_activation);
    let wanted = Gradient { batch_statistics, residual: grad_residual.is_some(), in_place: reads.g.is_none() };
    let Some(plan) = ApplyPlan::gradient(x, g, gpu.caps(), layer.flags(), wanted)? else {
        return Ok(ready(Ok(())).boxed());
    };
    let centering = Upload::new(gpu, centering)?;
    Ok(gpu.submit("gradient of the input", |recorder| {
        centering.send(recorder);
        let slice_of = |role| match role {
            Role::GradInput => dx,
            Role::GradResidual => grad_residual.unwrap_or(dx),
            _ => backward_slice(gpu, role, reads, &centering.lease, layer),
        };
        plan.dispatches.iter().for_each(|dispatch| recorder.dispatch(dispatch, slice_of));
    }))
}

/// Numbers of the host, and the memory on the device that they go to for one call.
struct Upload<'a> {
    bytes: &'a [u8],
    lease: Lease,
}

impl<'a> Upload<'a> {
    fn new<T: Pod>(gpu: &Gpu, values: &'a [T]) -> Result<Self, Error> {
        let bytes = bytemuck::cast_slice(values);
        Ok(Self { bytes, lease: gpu.scratch(bytes.len() as u64)? })
    }

    fn send(&self, recorder: &mut Recorder<'_>) {
        recorder.write(&self.lease, self.bytes);
    }
}
