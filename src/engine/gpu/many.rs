//! Several activations of one GPU at once: one submission, and one readback.

use std::time::Duration;

use futures::future::{FutureExt, ready};

use super::{Layer, Normalizing, range, record_sums, statistics_again, sums_of};
use crate::dtype::DType;
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Pending};
use crate::plan::{Activation, SumsPlan};
use crate::stats::{Centering, ChannelStats};

/// Local statistics of every activation, `[activation][channel]`.
pub(in crate::engine) fn local_stats_many(
    gpu: &Gpu,
    deadline: Duration,
    xs: &[(&BufferSlice, Activation<'_>)],
    eps: &[f64],
) -> Result<Pending<Vec<Vec<ChannelStats>>>, Error> {
    let alignment_bytes = u64::from(gpu.caps().offset_alignment_bytes);
    let (mut parts, mut end) = (Vec::with_capacity(xs.len()), 0);
    // Of every activation: its place among the sums, if it has any, and what they are sums of.
    let mut wanted = Vec::with_capacity(xs.len());
    for (&(slice, x), &eps) in xs.iter().zip(eps) {
        let mut place = None;
        if let Some(plan) = SumsPlan::statistics(x, gpu.caps())? {
            let start = u64::next_multiple_of(end, alignment_bytes);
            end = start + plan.local_bytes;
            let tiles = plan.combine.as_ref().map(|_| gpu.scratch(plan.tiles_bytes)).transpose()?;
            let again = statistics_again(gpu, deadline, slice, plan.clone());
            place = Some((start..end, eps, again));
            parts.push((slice, plan, tiles, start..end));
        }
        wanted.push((place, x.shape.channels(), x.shape.values_per_channel()));
    }
    if parts.is_empty() {
        let empty = wanted.into_iter().map(|(_, channels, _)| vec![ChannelStats::EMPTY; channels]).collect();
        return Ok(ready(Ok(empty)).boxed());
    }
    let local = gpu.scratch(end)?;
    let bytes = gpu.submit_and_read("local statistics of several layers", deadline, &local, |recorder| {
        for (slice, plan, tiles, place) in &parts {
            record_sums(recorder, plan, tiles.as_deref(), &local.part(place.clone()), |_| slice);
        }
    });
    Ok(async move {
        let bytes = bytes.await?;
        let mut statistics = Vec::with_capacity(wanted.len());
        for (sums, channels, count) in wanted {
            let Some((place, eps, again)) = sums else {
                statistics.push(vec![ChannelStats::EMPTY; channels]);
                continue;
            };
            let part = bytes.get(place.start as usize..place.end as usize).unwrap_or_default();
            statistics.push(range::statistics(sums_of(part), count, eps, again).await?);
        }
        Ok(statistics)
    }
    .boxed())
}

/// One normalization: x or nothing where y is written over it, residual, centering, layer, y.
pub(in crate::engine) type Apply<'a> = (
    (Option<&'a BufferSlice>, Activation<'a>),
    Option<&'a BufferSlice>,
    &'a [Centering],
    Layer<'a>,
    (&'a BufferSlice, DType),
);

/// Normalizes several activations.
pub(in crate::engine) fn apply_many(gpu: &Gpu, applies: Vec<Apply<'_>>) -> Result<Pending<()>, Error> {
    let mut all = Vec::with_capacity(applies.len());
    for (x, residual, centering, layer, y) in applies {
        all.extend(Normalizing::new(gpu, x, residual, centering, layer, y)?);
    }
    Ok(gpu.submit("normalize several layers", |recorder| all.iter().for_each(|one| one.record(gpu, recorder))))
}
