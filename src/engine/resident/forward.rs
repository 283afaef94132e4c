//! Forward: sums of every rank, their merge, the running statistics, the outputs.

use std::sync::Arc;

use super::super::ForwardRank;
use super::super::gpu::{Slices, note_write};
use super::{Center, Centers, Encoding, RankWeights, RunningPlace, Sums, send};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::plan::{Dispatch, FinalizeParams, Merge, Role, RunningForm, RunningUpdate};
use crate::stats::PerRank;

/// What a call normalizes with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Normalizer {
    /// The statistics of the batch, `per_rank` or of all ranks; the running ones may be updated.
    Batch { per_rank: bool, running_update: Option<RunningUpdate> },
    /// The running statistics.
    Running,
}

/// What a forward pass normalizes with, and what of the layer it reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct ForwardPass<'a> {
    /// C.
    pub channels: usize,
    pub eps: f64,
    pub normalizer: Normalizer,
    pub running: RunningPlace<'a>,
    pub rank_weights: &'a RankWeights,
}

/// Records and, without an encoder of the application, submits a whole forward pass.
pub(crate) fn forward(
    gpu: &Gpu,
    ranks: &mut [ForwardRank<'_>],
    pass: ForwardPass<'_>,
    encoding: Option<Encoding<'_>>,
) -> Result<Centers, Error> {
    let ForwardPass { channels, eps, normalizer, running, rank_weights } = pass;
    let memory = encoding.as_ref().map(|encoding| encoding.memory);
    let of_batch = matches!(normalizer, Normalizer::Batch { .. });
    let per_rank = matches!(normalizer, Normalizer::Batch { per_rank: true, .. });
    let counts = ranks.iter().map(|rank| rank.shape.values_per_channel()).collect();
    let merge = Merge::new(counts, channels, per_rank, gpu.caps())?;
    let all = (0..merge.results()).map(|_| Center::new(gpu, memory, channels).map(Arc::new));
    let all: Vec<Arc<Center>> = all.collect::<Result<_, _>>()?;
    let all = if per_rank { PerRank::Each(all) } else { PerRank::Shared(all[0].clone()) };
    let rank_weights = rank_weights.of(gpu, &merge)?;
    let centers = Centers { merge, rank_weights, centers: all, of_batch };
    let merge = &centers.merge;
    // Running statistics are there without a sum.
    let locals = of_batch.then(|| gpu.scratch_of(memory, merge.bytes())).transpose()?;
    let locals = locals.as_deref().unwrap_or(gpu.dummy(0));
    let mut sums = Vec::with_capacity(ranks.len());
    for (index, rank) in ranks.iter_mut().enumerate() {
        note_write(&mut rank.y);
        sums.push(Sums::new(gpu, memory, rank.sums.take(), locals.part(merge.slot(index)))?);
    }
    send(gpu, "forward", encoding, |recorder| {
        for (rank, sums) in ranks.iter().zip(&sums) {
            sums.iter().for_each(|sums| sums.record(recorder, Slices::statistics(gpu, rank)));
        }
        for (result, center) in centers.centers.iter().enumerate() {
            recorder.dispatch(&finalizing(merge, result, eps, normalizer, running), |role| {
                match role {
                    Role::Locals => locals,
                    Role::RankWeights => &centers.rank_weights,
                    _ => running.slice(role).unwrap_or_else(|| center.slice(role)),
                }
            });
        }
        for (index, rank) in ranks.iter().enumerate() {
            let slices = Slices::forward(gpu, rank).with_centering(centers.centering(index));
            let dispatches = rank.apply.iter().flat_map(|plan| &plan.dispatches);
            dispatches.for_each(|dispatch| recorder.dispatch(dispatch, |role| slices.role(role)));
        }
    })?;
    Ok(centers)
}

/// What makes one of the results.
fn finalizing(
    merge: &Merge,
    result: usize,
    eps: f64,
    normalizer: Normalizer,
    running: RunningPlace<'_>,
) -> Dispatch<FinalizeParams> {
    match (normalizer, running) {
        (Normalizer::Running, RunningPlace::Layer(_)) => merge.running(eps, RunningForm::Entries),
        (Normalizer::Running, _) => merge.running(eps, RunningForm::Vectors),
        (
            Normalizer::Batch { running_update: Some(update), per_rank: false },
            RunningPlace::Vectors { next: Some(_), .. },
        ) => merge.statistics_to_vectors(eps, update),
        (Normalizer::Batch { running_update, .. }, RunningPlace::Layer(_)) => {
            merge.statistics(result, eps, running_update)
        }
        // Vectors that are not updated have no part.
        (Normalizer::Batch { .. }, _) => merge.statistics(result, eps, None),
    }
}
