//! The steps on a GPU: plans carried out, one submission for all ranks of a device.

mod double;
mod exact;
mod outputs;
mod range;
mod slices;
mod sums;

pub(super) use double::{double_gradients, double_sums};
pub(super) use exact::{gradient_integers, gradient_ranges, integers, ranges};
pub(crate) use outputs::Ahead;
pub(super) use outputs::{
    input_gradients, normalize, note_write, record_input_gradients, record_normalize, unwanted,
};
pub(super) use slices::Slices;
pub(super) use sums::record_sums;

use std::time::Duration;

use futures::future::{FutureExt, ready};

use crate::engine::rank::layer_flags;
use crate::engine::{BackwardRank, ForwardRank, Layer};
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Pending};
use crate::plan::{Activation, ApplyPlan, Gradient, LayerFlags, Role, SumsPlan, accumulation};
use crate::stats::{GradientSums, Moments, Normalization};
use sums::{Job, Taker};

/// The flags of a layer for plans, if all activations have one storage type.
pub(super) fn flags(
    gpu: &Gpu,
    x: Activation<'_>,
    layer: Layer<'_>,
    keeps_mask: bool,
) -> LayerFlags {
    let mask = if keeps_mask { ApplyPlan::mask_order(x, x.dtype, gpu.caps()) } else { None };
    layer_flags(layer, mask)
}

pub(super) fn prepare(
    gpu: &Gpu,
    x: Activation<'_>,
    layer: Layer<'_>,
    keeps_mask: bool,
) -> Result<(), Error> {
    let flags = flags(gpu, x, layer, keeps_mask);
    // After training, and after evaluation.
    let gradient = |batch_statistics| {
        let wanted = Gradient {
            batch_statistics,
            residual: layer.epilogue.adds_residual(),
            in_place: false,
        };
        ApplyPlan::gradient(x, x, gpu.caps(), flags, wanted)
    };
    // Gradients of evaluation have their ordinary sums in any layer.
    let mut sums = vec![SumsPlan::gradient(x, x, gpu.caps(), flags)?];
    if layer.reproducible {
        sums.push(SumsPlan::integers(x, gpu.caps())?);
        sums.push(SumsPlan::gradient_integers(x, x, gpu.caps(), flags)?);
    } else {
        sums.push(SumsPlan::statistics(x, gpu.caps())?);
    }
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
        wanted.push(RankStatistics {
            job: plan.map(|plan| Job::new(plan, Slices::statistics(gpu, rank), Vec::new())),
            channels: rank.shape.channels(),
            count: rank.shape.values_per_channel(),
            eps: rank.layer.eps,
        });
    }
    let jobs: Vec<&Job> = wanted.iter().filter_map(|rank| rank.job.as_ref()).collect();
    if jobs.is_empty() {
        let empty = wanted.into_iter().map(|rank| vec![Moments::EMPTY; rank.channels]).collect();
        return Ok(ready(Ok(empty)).boxed());
    }
    let taker = Taker { gpu: gpu.clone(), deadline, phase: "local statistics" };
    let sums = taker.take(&jobs)?;
    Ok(async move {
        let mut sums = sums.await?.into_iter();
        let mut statistics = Vec::with_capacity(wanted.len());
        for RankStatistics { job, channels, count, eps } in wanted {
            let Some(job) = job else {
                statistics.push(vec![Moments::EMPTY; channels]);
                continue;
            };
            let own = sums.next().unwrap_or_default();
            statistics.push(range::statistics(own, count, eps, &taker, &job).await?);
        }
        Ok(statistics)
    }
    .boxed())
}

/// The local statistics of one rank, to be taken.
struct RankStatistics {
    /// `None` for a rank without values.
    job: Option<Job>,
    channels: usize,
    /// Values per channel.
    count: u64,
    eps: f64,
}

pub(super) fn gradient_sums(
    gpu: &Gpu,
    deadline: Duration,
    ranks: Vec<(&mut BackwardRank<'_>, &Normalization)>,
) -> Result<Pending<Vec<Vec<GradientSums>>>, Error> {
    let mut wanted = Vec::with_capacity(ranks.len());
    for (rank, normalization) in ranks {
        let channels = rank.shape.channels();
        let Some(plan) = rank.sums.take() else {
            wanted.push(RankGradientSums { job: None, channels, pivots: Vec::new() });
            continue;
        };
        let centering = normalization.centering();
        let pivots = centering
            .iter()
            .zip(normalization.rest())
            .map(|(center, rest)| Pivot { unit: center.unit.into(), rest })
            .collect();
        let job = Some(Job::new(plan, Slices::gradient_sums(gpu, rank), centering));
        wanted.push(RankGradientSums { job, channels, pivots });
    }
    let jobs: Vec<&Job> = wanted.iter().filter_map(|rank| rank.job.as_ref()).collect();
    if jobs.is_empty() {
        let empty =
            wanted.into_iter().map(|rank| vec![GradientSums::EMPTY; rank.channels]).collect();
        return Ok(ready(Ok(empty)).boxed());
    }
    let taker = Taker { gpu: gpu.clone(), deadline, phase: "local gradient sums" };
    let sums = taker.take(&jobs)?;
    Ok(async move {
        let mut sums = sums.await?.into_iter();
        let mut of_ranks = Vec::with_capacity(wanted.len());
        for RankGradientSums { job, channels, pivots } in wanted {
            let Some(job) = job else {
                of_ranks.push(vec![GradientSums::EMPTY; channels]);
                continue;
            };
            let own = sums.next().unwrap_or_default();
            let own = range::gradient_sums(own, &taker, &job).await?;
            of_ranks
                .push(own.into_iter().zip(pivots).map(|(sums, at)| at.about_mean(sums)).collect());
        }
        Ok(of_ranks)
    }
    .boxed())
}

/// The local gradient sums of one rank, to be taken.
struct RankGradientSums {
    /// `None` for a rank without values.
    job: Option<Job>,
    channels: usize,
    /// By channel.
    pivots: Vec<Pivot>,
}

/// About what a kernel sums the gradients of a channel.
struct Pivot {
    /// In which x and the rest count.
    unit: f64,
    /// The mean less the pivot.
    rest: f64,
}

impl Pivot {
    /// [Σg, Σ g·(x − pivot), flag of g, flag of x] about the mean.
    fn about_mean(&self, [sum_dy, sum_dy_x, g_flag, x_flag]: [f64; 4]) -> GradientSums {
        // Each flag makes NaN what its values enter, whatever the driver made of them.
        let nan_if = |flag: f64| if flag != 0.0 { f64::NAN } else { 0.0 };
        let sum_dy = sum_dy + nan_if(g_flag);
        let sum_dy_x = (sum_dy_x + nan_if(x_flag)) / self.unit;
        GradientSums::from_pivot(sum_dy, sum_dy_x, self.rest)
    }
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
