//! The phases on a GPU: plans carried out.

use std::time::Duration;

use futures::future::{FutureExt, ready};

use super::AffineParameters;
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Pending};
use crate::plan::{ApplyPlan, Role, StatsPlan};
use crate::shape::Shape;
use crate::stats::{Centering, ChannelStats};
use crate::tensor::{Storage, Tensor};

pub(super) fn check_limits(gpu: &Gpu, shape: &Shape) -> Result<(), Error> {
    StatsPlan::new(shape, gpu.caps())?;
    ApplyPlan::new(shape, gpu.caps(), false, false)?;
    Ok(())
}

pub(super) fn local_stats(
    gpu: &Gpu,
    deadline: Duration,
    x: &BufferSlice,
    shape: &Shape,
) -> Result<Pending<Vec<ChannelStats>>, Error> {
    let channels = shape.channels();
    let Some(plan) = StatsPlan::new(shape, gpu.caps())? else {
        return Ok(ready(Ok(vec![ChannelStats::EMPTY; channels])).boxed());
    };
    let tiles = gpu.new_buffer(plan.tiles_bytes, None)?;
    let local = gpu.new_buffer(plan.local_bytes, None)?;
    let slice_of = |role| match role {
        Role::Tiles => &tiles,
        Role::Local => &local,
        _ => x,
    };
    let sums = gpu.submit_and_read("local statistics", deadline, &local, |recorder| {
        recorder.dispatch(&plan.partial, slice_of);
        if let Some(combine) = &plan.combine {
            recorder.dispatch(combine, slice_of);
        }
    });
    let count = shape.values_per_channel();
    Ok(async move { Ok(sums.await?.chunks_exact(16).map(|sums| channel_stats(count, sums)).collect()) }.boxed())
}

/// Moments of a channel from the (pivot, Σ(x − pivot), Σ(x − pivot)², flag) that the kernels leave.
fn channel_stats(count: u64, sums: &[u8]) -> ChannelStats {
    let [pivot, sum, squares, flag]: [f32; 4] = bytemuck::pod_read_unaligned(sums);
    if flag != 0.0 {
        return ChannelStats::not_finite(count);
    }
    ChannelStats::from_sums(count, pivot.into(), sum.into(), squares.into())
}

pub(super) fn apply(
    gpu: &Gpu,
    x: &BufferSlice,
    shape: &Shape,
    centering: &[Centering],
    parameters: &AffineParameters,
    y: &BufferSlice,
) -> Result<Pending<()>, Error> {
    let (weight, bias) = (device_slice(&parameters.weight), device_slice(&parameters.bias));
    let Some(plan) = ApplyPlan::new(shape, gpu.caps(), weight.is_some(), bias.is_some())? else {
        return Ok(ready(Ok(())).boxed());
    };
    let bytes = bytemuck::cast_slice(centering);
    let centering = gpu.new_buffer(bytes.len() as u64, Some(bytes))?;
    let submitted = gpu.submit("normalize", |recorder| {
        recorder.dispatch(&plan.normalize, |role| match role {
            Role::Input => x,
            Role::Output => y,
            Role::Weight => weight.unwrap_or(&centering),
            Role::Bias => bias.unwrap_or(&centering),
            _ => &centering,
        });
    });
    Ok(submitted)
}

fn device_slice(parameter: &Option<Tensor>) -> Option<&BufferSlice> {
    match parameter.as_ref()?.storage() {
        Storage::Gpu(slice) => Some(slice),
        Storage::Host(_) => None,
    }
}
