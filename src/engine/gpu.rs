//! The steps on a GPU: plans carried out, one submission for all ranks of a device.

mod range;
mod slices;
mod sums;

pub(super) use slices::Slices;
pub(super) use sums::{Upload, record_sums};

use std::time::Duration;

use futures::future::{FutureExt, ready};

use crate::engine::rank::layer_flags;
use crate::engine::{BackwardRank, ForwardRank, Layer};
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Pending};
use crate::plan::{Activation, ApplyPlan, Gradient, LayerFlags, Role, SumsPlan, accumulation};
use crate::stats::{Centering, GradCentering, GradientSums, Moments, Normalization};
use sums::{Job, Taker};

pub(super) fn prepare(
    gpu: &Gpu,
    x: Activation<'_>,
    layer: Layer<'_>,
    keeps_mask: bool,
) -> Result<(), Error> {
    let mask = if keeps_mask { ApplyPlan::mask_order(x, x.dtype, gpu.caps()) } else { None };
    let flags: LayerFlags = layer_flags(layer, mask);
    // After training, and after evaluation.
    let gradient = |batch_statistics| {
        let wanted = Gradient {
            batch_statistics,
            residual: layer.epilogue.adds_residual(),
            in_place: false,
        };
        ApplyPlan::gradient(x, x, gpu.caps(), flags, wanted)
    };
    let sums = [SumsPlan::statistics(x, gpu.caps())?, SumsPlan::gradient(x, x, gpu.caps(), flags)?];
    let normalize = ApplyPlan::normalize(x, x.dtype, gpu.caps(), flags, false)?;
    let applies = [normalize, gradient(true)?, gradient(false)?];
    let sums = sums.iter().flatten().flat_map(|plan| {
        let partials = plan.partials.iter().map(|partial| partial.variant);
        partials.chain(plan.combine.iter().map(|combine| combine.variant))
    });
    let applies = applies
        .iter()
        .flatten()
        .flat_map(|plan| plan.dispatches.iter().map(|dispatch| dispatch.variant));
    gpu.build(sums.chain(applies))
}

pub(super) fn statistics(
    gpu: &Gpu,
    deadline: Duration,
    ranks: Vec<&mut ForwardRank<'_>>,
) -> Result<Pending<Vec<Vec<Moments>>>, Error> {
    let mut wanted = Vec::with_capacity(ranks.len());
    for rank in ranks {
        let plan = rank.sums.take();
        let job = plan.map(|plan| Job::new(plan, Slices::statistics(gpu, rank), Vec::new()));
        wanted.push((job, rank.shape.channels(), rank.shape.values_per_channel(), rank.layer.eps));
    }
    let jobs: Vec<&Job> = wanted.iter().filter_map(|(job, ..)| job.as_ref()).collect();
    if jobs.is_empty() {
        let empty =
            wanted.into_iter().map(|(_, channels, ..)| vec![Moments::EMPTY; channels]).collect();
        return Ok(ready(Ok(empty)).boxed());
    }
    let taker = Taker { gpu: gpu.clone(), deadline, phase: "local statistics" };
    let sums = taker.take(&jobs)?;
    Ok(async move {
        let mut sums = sums.await?.into_iter();
        let mut statistics = Vec::with_capacity(wanted.len());
        for (job, channels, count, eps) in wanted {
            statistics.push(match job {
                Some(job) => {
                    range::statistics(sums.next().unwrap_or_default(), count, eps, &taker, &job)
                        .await?
                }
                None => vec![Moments::EMPTY; channels],
            });
        }
        Ok(statistics)
    }
    .boxed())
}

pub(super) fn gradient_sums(
    gpu: &Gpu,
    deadline: Duration,
    ranks: Vec<(&mut BackwardRank<'_>, &Normalization)>,
) -> Result<Pending<Vec<Vec<GradientSums>>>, Error> {
    let mut wanted = Vec::with_capacity(ranks.len());
    for (rank, normalization) in ranks {
        let job = rank.sums.take().map(|plan| {
            let centering = normalization.centering();
            // Σ g·(x − pivot) counts in the units of x and of the rest.
            let units: Vec<f64> = centering.iter().map(|center| center.unit.into()).collect();
            let channels: Vec<(f64, f64)> = units.into_iter().zip(normalization.rest()).collect();
            (Job::new(plan, Slices::gradient_sums(gpu, rank), centering), channels)
        });
        wanted.push((job, rank.shape.channels()));
    }
    let jobs: Vec<&Job> =
        wanted.iter().filter_map(|(job, _)| job.as_ref()).map(|(job, _)| job).collect();
    if jobs.is_empty() {
        let empty =
            wanted.into_iter().map(|(_, channels)| vec![GradientSums::EMPTY; channels]).collect();
        return Ok(ready(Ok(empty)).boxed());
    }
    let taker = Taker { gpu: gpu.clone(), deadline, phase: "local gradient sums" };
    let sums = taker.take(&jobs)?;
    Ok(async move {
        let mut sums = sums.await?.into_iter();
        let mut of_ranks = Vec::with_capacity(wanted.len());
        for (job, channels) in wanted {
            of_ranks.push(match job {
                Some((job, channels)) => {
                    let sums =
                        range::gradient_sums(sums.next().unwrap_or_default(), &taker, &job).await?;
                    sums.into_iter().zip(channels).map(about_mean).collect()
                }
                None => vec![GradientSums::EMPTY; channels],
            });
        }
        Ok(of_ranks)
    }
    .boxed())
}

/// [Σg, Σ g·(x − pivot), flag of g, flag of x] of a channel with its unit and its rest, about its
/// mean.
fn about_mean(
    ([sum_dy, sum_dy_x, g_flag, x_flag], (unit, rest)): ([f64; 4], (f64, f64)),
) -> GradientSums {
    // Each flag makes NaN what its values enter, whatever the driver made of them.
    let nan_if = |flag: f64| if flag != 0.0 { f64::NAN } else { 0.0 };
    GradientSums::from_pivot(sum_dy + nan_if(g_flag), (sum_dy_x + nan_if(x_flag)) / unit, rest)
}

pub(super) fn normalize(
    gpu: &Gpu,
    ranks: Vec<(&mut ForwardRank<'_>, &[Centering])>,
) -> Result<Pending<()>, Error> {
    let mut ready = Vec::with_capacity(ranks.len());
    for (rank, centering) in ranks {
        note_write(&mut rank.y);
        let Some(plan) = rank.apply.take() else { continue };
        ready.push((plan, Upload::new(gpu, centering)?, &*rank));
    }
    Ok(write(
        gpu,
        "normalize",
        ready.iter().map(|(plan, upload, rank)| (plan, upload, Slices::forward(gpu, rank))),
    ))
}

pub(super) fn input_gradients(
    gpu: &Gpu,
    ranks: Vec<(&mut BackwardRank<'_>, &[GradCentering])>,
) -> Result<Pending<()>, Error> {
    let mut ready = Vec::with_capacity(ranks.len());
    for (rank, centering) in ranks {
        note_write(&mut rank.grad_input);
        note_write(&mut rank.grad_residual);
        let Some(plan) = rank.apply.take() else { continue };
        ready.push((plan, Upload::new(gpu, centering)?, unwanted(gpu, rank, None)?, &*rank));
    }
    let parts = ready.iter().map(|(plan, upload, unwanted, rank)| {
        (plan, upload, Slices::backward(gpu, rank).with_unwanted(unwanted.as_deref()))
    });
    Ok(write(gpu, "gradient of the input", parts))
}

/// Memory for a gradient of x that nobody wants: one kernel writes it and that of the residual.
pub(super) fn unwanted(
    gpu: &Gpu,
    rank: &BackwardRank<'_>,
    pool: Option<&crate::gpu::Memory>,
) -> Result<Option<Lease>, Error> {
    let bytes = rank.shape.elements().saturating_mul(rank.x.dtype().size_bytes());
    rank.grad_input.is_none().then(|| gpu.scratch_of(pool, bytes)).transpose()
}

/// Notes that a tensor is about to be written.
pub(super) fn note_write(tensor: &mut Option<&mut crate::tensor::Tensor>) {
    if let Some(tensor) = tensor {
        tensor.memory_mut();
    }
}

/// Submits kernels that write activations, if there are any.
fn write<'a>(
    gpu: &Gpu,
    phase: &'static str,
    parts: impl ExactSizeIterator<Item = (&'a ApplyPlan, &'a Upload<'a>, Slices<'a>)>,
) -> Pending<()> {
    if parts.len() == 0 {
        return ready(Ok(())).boxed();
    }
    gpu.submit(phase, |recorder| {
        for (plan, upload, slices) in parts {
            upload.send(recorder);
            let slices = slices.with_centering(&upload.lease);
            plan.dispatches
                .iter()
                .for_each(|dispatch| recorder.dispatch(dispatch, |role| slices.role(role)));
        }
    })
}

/// Adds as many values to a vector of f32 as it has.
pub(super) fn accumulate(
    gpu: &Gpu,
    target: &BufferSlice,
    values: &[f32],
) -> Result<Pending<()>, Error> {
    let dispatch = accumulation(values.len(), gpu.caps())?;
    let addend = gpu.scratch(size_of_val(values) as u64)?;
    Ok(gpu.submit("accumulating a gradient", |recorder| {
        recorder.write(&addend, bytemuck::cast_slice(values));
        recorder.dispatch(&dispatch, |role| if role == Role::Total { target } else { &addend });
    }))
}
