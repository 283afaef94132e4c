//! Forward: sums of every rank, their merge, the running statistics, the outputs.

use std::sync::Arc;

use super::super::ForwardRank;
use super::super::gpu::{Slices, note_write};
use super::exact::Integers;
use super::{Center, Centers, Encoding, RankWeights, RunningPlace, Sums, merging, send};
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Recorder};
use crate::plan::{
    Dispatch, FinalizeParams, Merge, Role, RunningForm, RunningUpdate, Section, SumsPlan, Taken,
    TileParams,
};
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
    /// Whether sums of a batch are of integers.
    pub exact: bool,
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
    let ForwardPass { channels, eps, normalizer, running, rank_weights, .. } = pass;
    let memory = encoding.as_ref().map(|encoding| encoding.memory);
    let of_batch = matches!(normalizer, Normalizer::Batch { .. });
    let per_rank = matches!(normalizer, Normalizer::Batch { per_rank: true, .. });
    let counts = ranks.iter().map(|rank| rank.shape.values_per_channel()).collect();
    let merge = Merge::new(counts, channels, per_rank, gpu.caps())?;
    let is_exact = of_batch && pass.exact;
    if is_exact {
        merge.check_integers(gpu.caps())?;
    }
    let grids_bytes = is_exact.then(|| merge.grids_bytes());
    let all =
        (0..merge.results()).map(|_| Center::new(gpu, memory, channels, grids_bytes).map(Arc::new));
    let all: Vec<Arc<Center>> = all.collect::<Result<_, _>>()?;
    let all = if per_rank { PerRank::Each(all) } else { PerRank::Shared(all[0].clone()) };
    let rank_weights = rank_weights.of(gpu, &merge)?;
    let centers = Centers { merge, rank_weights, centers: all, of_batch };
    if is_exact {
        return exact(gpu, ranks, pass, centers, encoding);
    }
    let merge = &centers.merge;
    let plans: Vec<_> = ranks
        .iter_mut()
        .map(|rank| {
            note_write(&mut rank.y);
            rank.sums.take()
        })
        .collect();
    if let ([rank], [Some(plan)]) = (&*ranks, &*plans) {
        let finalize = finalizing(merge, 0, eps, normalizer, running);
        if let Some(sums) = plan.finishing(&finalize) {
            finish(gpu, rank, &centers, running, &sums, encoding)?;
            return Ok(centers);
        }
    }
    // Running statistics are there without a sum.
    let locals = of_batch.then(|| gpu.scratch_of(memory, merge.bytes())).transpose()?;
    let locals = locals.as_deref().unwrap_or(gpu.dummy(0));
    let sums = Sums::of_ranks(gpu, memory, merge, locals, plans.into_iter())?;
    send(gpu, "forward", encoding, |recorder| {
        for (rank, sums) in ranks.iter().zip(&sums) {
            sums.iter().for_each(|sums| sums.record(recorder, Slices::statistics(gpu, rank)));
        }
        for (result, center) in centers.centers.iter().enumerate() {
            let mut dispatch = finalizing(merge, result, eps, normalizer, running);
            let mut sums_of_rank = locals;
            if let Some((combine, tiles)) = merging(&sums) {
                (dispatch, sums_of_rank) = (dispatch.of_tiles(combine), tiles);
            }
            recorder.dispatch(&dispatch, |role| match role {
                Role::Locals | Role::Tiles => sums_of_rank,
                Role::RankWeights => &centers.rank_weights,
                _ => running.slice(role).unwrap_or_else(|| center.slice(role)),
            });
        }
        normalize(gpu, recorder, ranks, &centers);
    })?;
    Ok(centers)
}

/// What a kernel binds that sums the only rank and makes its statistics.
fn role_of_only<'a>(
    role: Role,
    centers: &'a Centers,
    running: RunningPlace<'a>,
    slices: Slices<'a>,
) -> &'a BufferSlice {
    match role {
        Role::Centering | Role::Mean | Role::InvStd => centers.centers.of(0).slice(role),
        _ => running.slice(role).unwrap_or_else(|| slices.role(role)),
    }
}

/// The pass over a single rank whose channels have one tile each: the kernel that sums it makes its
/// statistics, and for small tensors y.
fn finish(
    gpu: &Gpu,
    rank: &ForwardRank<'_>,
    centers: &Centers,
    running: RunningPlace<'_>,
    sums: &[Dispatch<TileParams>],
    encoding: Option<Encoding<'_>>,
) -> Result<(), Error> {
    if let Some(fused) = rank.apply.as_ref().and_then(|apply| SumsPlan::fused(sums, apply)) {
        let slices = Slices::forward(gpu, rank);
        return send(gpu, "forward", encoding, |recorder| {
            recorder.dispatch(&fused, |role| role_of_only(role, centers, running, slices));
        });
    }
    let slices = Slices::statistics(gpu, rank);
    send(gpu, "forward", encoding, |recorder| {
        for dispatch in sums {
            recorder.dispatch(dispatch, |role| role_of_only(role, centers, running, slices));
        }
        normalize(gpu, recorder, std::slice::from_ref(rank), centers);
    })
}

/// Records what writes y of every rank.
fn normalize(gpu: &Gpu, recorder: &mut Recorder<'_>, ranks: &[ForwardRank<'_>], centers: &Centers) {
    for (index, rank) in ranks.iter().enumerate() {
        let slices = Slices::forward(gpu, rank).with_centering(centers.centering(index));
        let dispatches = rank.apply.iter().flat_map(|plan| &plan.dispatches);
        dispatches.for_each(|dispatch| recorder.dispatch(dispatch, |role| slices.role(role)));
    }
}

/// The same with sums of integers: ranges, sums, and sums of rounding errors where outliers are
/// far.
fn exact(
    gpu: &Gpu,
    ranks: &mut [ForwardRank<'_>],
    pass: ForwardPass<'_>,
    centers: Centers,
    encoding: Option<Encoding<'_>>,
) -> Result<Centers, Error> {
    let memory = encoding.as_ref().map(|encoding| encoding.memory);
    let plans = ranks.iter_mut().map(|rank| {
        note_write(&mut rank.y);
        rank.sums.take()
    });
    let integers = Integers::new(gpu, memory, &centers.merge, plans.collect(), &Section::ALL)?;
    let wide_bytes = centers.merge.wide_grids_bytes();
    let wide = centers.centers.iter().map(|_| gpu.scratch_of(memory, wide_bytes));
    let wide: Vec<Lease> = wide.collect::<Result<_, _>>()?;
    send(gpu, "forward", encoding, |recorder| {
        exact_sums(gpu, recorder, ranks, &centers, (&integers, &wide));
        for (result, center) in centers.centers.iter().enumerate() {
            let Normalizer::Batch { running_update, .. } = pass.normalizer else { continue };
            let (form, update) = match pass.running {
                RunningPlace::Vectors { next: Some(_), .. } => {
                    (RunningForm::Vectors, running_update)
                }
                RunningPlace::Vectors { .. } => (RunningForm::Entries, None),
                RunningPlace::Layer(_) => (RunningForm::Entries, running_update),
            };
            let dispatch = centers.merge.exact_statistics(result, pass.eps, form, update);
            let slice = |role| match role {
                Role::Grids => center.grids.as_deref().unwrap_or(gpu.dummy(0)),
                _ => pass.running.slice(role).unwrap_or_else(|| center.slice(role)),
            };
            recorder.dispatch(&dispatch, |role| integers.role(role, &centers, slice));
        }
        normalize(gpu, recorder, ranks, &centers);
    })?;
    Ok(centers)
}

/// Records the sums of every rank and what decides on them.
fn exact_sums(
    gpu: &Gpu,
    recorder: &mut Recorder<'_>,
    ranks: &[ForwardRank<'_>],
    centers: &Centers,
    (integers, wide): (&Integers, &[Lease]),
) {
    let slices = || ranks.iter().map(|rank| Slices::statistics(gpu, rank)).enumerate();
    for (rank, slices) in slices() {
        integers.record(recorder, rank, (Taken::Range, Section::Integers), slices);
    }
    let find = |recorder: &mut Recorder<'_>, dispatch: &Dispatch<_>, result: usize| {
        let grids = centers.grids(result).unwrap_or(gpu.dummy(0));
        recorder.dispatch(dispatch, |role| {
            integers.role(role, centers, |role| match role {
                Role::WideGrids => &wide[result],
                _ => grids,
            })
        });
    };
    for result in 0..centers.merge.results() {
        find(recorder, &centers.merge.grids(result), result);
    }
    for (rank, slices) in slices() {
        let slices = slices.with_grids(centers.grids(rank).unwrap_or(gpu.dummy(0)));
        integers.record(recorder, rank, (Taken::Integers, Section::Integers), slices);
    }
    for result in 0..centers.merge.results() {
        find(recorder, &centers.merge.wide_grids(result), result);
    }
    for (rank, slices) in slices() {
        let slices = slices.with_grids(&wide[rank.min(wide.len() - 1)]);
        for section in Section::OF_RESTS {
            integers.record(recorder, rank, (section.taken(), section), slices);
        }
    }
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
