//! The phases on a GPU: plans carried out.

use std::time::Duration;

use bytemuck::Pod;
use futures::future::{FutureExt, ready};

use super::device_slice;
use crate::dtype::DType;
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Pending};
use crate::plan::{Activation, ApplyPlan, CHANNEL_SUMS_BYTES, LayerFlags, Role, SumsPlan};
use crate::stats::{Centering, ChannelStats, GradCentering, GradientSums, Normalization};

pub(super) fn check_limits(gpu: &Gpu, x: Activation<'_>) -> Result<(), Error> {
    SumsPlan::statistics(x, gpu.caps())?;
    ApplyPlan::normalize(x, x.dtype, gpu.caps(), LayerFlags::default())?;
    Ok(())
}

pub(super) fn local_stats(
    gpu: &Gpu,
    deadline: Duration,
    slice: &BufferSlice,
    x: Activation<'_>,
) -> Result<Pending<Vec<ChannelStats>>, Error> {
    let Some(plan) = SumsPlan::statistics(x, gpu.caps())? else {
        return Ok(ready(Ok(vec![ChannelStats::EMPTY; x.shape.channels()])).boxed());
    };
    let sums = sums_per_channel(gpu, deadline, "local statistics", &plan, |_| slice)?;
    let count = x.shape.values_per_channel();
    let channel_stats = move |[pivot, sum, squares, flag]: [f32; 4]| {
        if flag != 0.0 {
            return ChannelStats::not_finite(count);
        }
        ChannelStats::from_sums(count, pivot.into(), sum.into(), squares.into())
    };
    Ok(async move { Ok(sums.await?.into_iter().map(channel_stats).collect()) }.boxed())
}

/// A layer's parameters as slices, and what kernels are told of it.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    weight: Option<&'a BufferSlice>,
    bias: Option<&'a BufferSlice>,
    flags: LayerFlags,
}

impl<'a> Layer<'a> {
    pub fn of(layer: super::Layer<'a>) -> Self {
        let (weight, bias) = (device_slice(layer.weight), device_slice(layer.bias));
        let flags = LayerFlags { weight: weight.is_some(), bias: bias.is_some(), epilogue: layer.epilogue };
        Self { weight, bias, flags }
    }
}

/// What backward reads, as slices.
#[derive(Clone, Copy)]
pub(super) struct Reads<'a> {
    g: (&'a BufferSlice, Activation<'a>),
    x: (&'a BufferSlice, Activation<'a>),
    residual: Option<&'a BufferSlice>,
}

impl<'a> Reads<'a> {
    /// `None` where a tensor does not lie on a GPU.
    pub fn of(upstream: super::Upstream<'a>) -> Option<Self> {
        let slice = |view: super::View<'a>| Some((device_slice(Some(view.tensor))?, view.activation()));
        Some(Self { g: slice(upstream.g)?, x: slice(upstream.x)?, residual: device_slice(upstream.residual) })
    }
}

pub(super) fn local_gradient_sums(
    gpu: &Gpu,
    deadline: Duration,
    reads: Reads<'_>,
    normalization: &Normalization,
    layer: Layer<'_>,
) -> Result<Pending<Vec<GradientSums>>, Error> {
    let (x, g) = (reads.x.1, reads.g.1);
    let Some(plan) = SumsPlan::gradient(x, g, gpu.caps(), layer.flags)? else {
        return Ok(ready(Ok(vec![GradientSums::EMPTY; x.shape.channels()])).boxed());
    };
    let centering = upload(gpu, &normalization.centering())?;
    let sums = sums_per_channel(gpu, deadline, "local gradient sums", &plan, |role| {
        backward_slice(gpu, role, reads, &centering, layer)
    })?;
    let rests: Vec<f64> = normalization.rest().collect();
    let gradient_sums = |([sum_dy, sum_dy_x, g_flag, x_flag], rest): ([f32; 4], f64)| {
        // Each flag makes NaN what its values enter, whatever the driver made of them.
        let nan_if = |flag: f32| if flag != 0.0 { f64::NAN } else { 0.0 };
        let sum_dy = f64::from(sum_dy) + nan_if(g_flag);
        GradientSums::from_pivot(sum_dy, f64::from(sum_dy_x) + nan_if(x_flag), rest)
    };
    Ok(async move { Ok(sums.await?.into_iter().zip(rests).map(gradient_sums).collect()) }.boxed())
}

/// Runs both kernels of a plan and reads back four numbers per channel. `slice_of` tells all but the scratch.
fn sums_per_channel<'s>(
    gpu: &Gpu,
    deadline: Duration,
    phase: &'static str,
    plan: &SumsPlan,
    slice_of: impl Fn(Role) -> &'s BufferSlice,
) -> Result<Pending<Vec<[f32; 4]>>, Error> {
    let tiles = gpu.new_buffer(plan.tiles_bytes, None)?;
    let local = gpu.new_buffer(plan.local_bytes, None)?;
    let slice_of = |role| match role {
        Role::Tiles => &tiles,
        Role::Local => &local,
        _ => slice_of(role),
    };
    let bytes = gpu.submit_and_read(phase, deadline, &local, |recorder| {
        for partial in &plan.partials {
            recorder.dispatch(partial, slice_of);
        }
        if let Some(combine) = &plan.combine {
            recorder.dispatch(combine, slice_of);
        }
    });
    let read =
        |bytes: Vec<u8>| bytes.chunks_exact(CHANNEL_SUMS_BYTES as usize).map(bytemuck::pod_read_unaligned).collect();
    Ok(async move { Ok(read(bytes.await?)) }.boxed())
}

/// The slice of a role that backward reads. What is absent is bound to memory that no kernel looks at.
fn backward_slice<'a>(
    gpu: &'a Gpu,
    role: Role,
    reads: Reads<'a>,
    centering: &'a BufferSlice,
    layer: Layer<'a>,
) -> &'a BufferSlice {
    match role {
        Role::GradOutput => reads.g.0,
        Role::Input => reads.x.0,
        Role::Residual => reads.residual.unwrap_or(gpu.spare(0)),
        Role::Weight => layer.weight.unwrap_or(gpu.spare(1)),
        Role::Bias => layer.bias.unwrap_or(gpu.spare(2)),
        _ => centering,
    }
}

pub(super) fn apply(
    gpu: &Gpu,
    (slice, x): (&BufferSlice, Activation<'_>),
    residual: Option<&BufferSlice>,
    centering: &[Centering],
    layer: Layer<'_>,
    (y, y_dtype): (&BufferSlice, DType),
) -> Result<Pending<()>, Error> {
    let Some(plan) = ApplyPlan::normalize(x, y_dtype, gpu.caps(), layer.flags)? else {
        return Ok(ready(Ok(())).boxed());
    };
    let centering = upload(gpu, centering)?;
    Ok(gpu.submit("normalize", |recorder| {
        let slice_of = |role| match role {
            Role::Input => slice,
            Role::Output => y,
            Role::Residual => residual.unwrap_or(gpu.spare(0)),
            Role::Weight => layer.weight.unwrap_or(gpu.spare(1)),
            Role::Bias => layer.bias.unwrap_or(gpu.spare(2)),
            _ => &centering,
        };
        plan.dispatches.iter().for_each(|dispatch| recorder.dispatch(dispatch, slice_of));
    }))
}

pub(super) fn grad_input(
    gpu: &Gpu,
    reads: Reads<'_>,
    batch_statistics: bool,
    centering: &[GradCentering],
    layer: Layer<'_>,
    (dx, grad_residual): (&BufferSlice, Option<&BufferSlice>),
) -> Result<Pending<()>, Error> {
    let (x, g, wanted) = (reads.x.1, reads.g.1, grad_residual.is_some());
    let Some(plan) = ApplyPlan::grad_input(x, g, gpu.caps(), layer.flags, batch_statistics, wanted)? else {
        return Ok(ready(Ok(())).boxed());
    };
    let centering = upload(gpu, centering)?;
    Ok(gpu.submit("gradient of the input", |recorder| {
        let slice_of = |role| match role {
            Role::GradInput => dx,
            Role::GradResidual => grad_residual.unwrap_or(dx),
            _ => backward_slice(gpu, role, reads, &centering, layer),
        };
        plan.dispatches.iter().for_each(|dispatch| recorder.dispatch(dispatch, slice_of));
    }))
}

fn upload<T: Pod>(gpu: &Gpu, values: &[T]) -> Result<BufferSlice, Error> {
    let bytes = bytemuck::cast_slice(values);
    gpu.new_buffer(bytes.len() as u64, Some(bytes))
}
