//! Backward: gradient sums of every rank, their merge, the gradients of parameters, inputs and
//! residuals.

use super::super::BackwardRank;
use super::super::gpu::{Slices, note_write, unwanted};
use super::exact::Integers;
use super::{Centers, Encoding, Sums, merging, send};
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Memory, Recorder};
use crate::plan::{Dispatch, ParameterGradients, Role, Section, SumsPlan, Taken, TileParams};
use crate::stats::GradCentering;

/// What a rank needs beside its tensors.
struct Scratch {
    grad_centering: Lease,
    unwanted: Option<Lease>,
}

/// Notes that the targets of a rank are about to be written.
fn note_writes(rank: &mut BackwardRank<'_>) {
    let targets =
        [&mut rank.grad_input, &mut rank.grad_residual, &mut rank.grad_weight, &mut rank.grad_bias];
    targets.into_iter().for_each(note_write);
}

impl Scratch {
    fn new(
        gpu: &Gpu,
        memory: Option<&Memory>,
        rank: &BackwardRank<'_>,
        channels: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            grad_centering: gpu
                .scratch_of(memory, (channels * size_of::<GradCentering>()) as u64)?,
            unwanted: if rank.apply.is_some() { unwanted(gpu, rank, memory)? } else { None },
        })
    }
}

/// Records and, without an encoder of the application, submits a whole backward pass. Gradients of
/// parameters are of the rank, or of all divided by `parameters.of_all`.
pub(crate) fn backward(
    gpu: &Gpu,
    ranks: &mut [BackwardRank<'_>],
    channels: usize,
    centers: &Centers,
    parameters: ParameterGradients,
    encoding: Option<Encoding<'_>>,
) -> Result<(), Error> {
    let memory = encoding.as_ref().map(|encoding| encoding.memory);
    let merge = &centers.merge;
    if centers.grids(0).is_some() {
        return exact(gpu, ranks, channels, centers, parameters, encoding);
    }
    ranks.iter_mut().for_each(note_writes);
    let plans: Vec<_> = ranks.iter_mut().map(|rank| rank.sums.take()).collect();
    let new_scratch = |rank| Scratch::new(gpu, memory, rank, channels);
    if let ([rank], [Some(plan)]) = (&*ranks, &*plans) {
        let finalize = merge.gradient(0, centers.of_batch, wanted_of(rank, parameters));
        if let Some(sums) = plan.finishing_gradient(&finalize) {
            let fused = rank.apply.as_ref().and_then(|apply| SumsPlan::fused(&sums, apply));
            let Some(fused) = fused else {
                return finish(gpu, rank, centers, (&sums, &new_scratch(rank)?), encoding);
            };
            let slices = Slices::backward(gpu, rank).with_centering(centers.centering(0));
            return send(gpu, "backward", encoding, |recorder| {
                recorder.dispatch(&fused, |role| slices.role(role));
            });
        }
    }
    let scratch: Vec<Scratch> = ranks.iter().map(new_scratch).collect::<Result<_, _>>()?;
    let locals = gpu.scratch_of(memory, merge.bytes())?;
    let sums = Sums::of_ranks(gpu, memory, merge, &locals, plans.into_iter())?;
    send(gpu, "backward", encoding, |recorder| {
        for (index, (rank, sums)) in ranks.iter().zip(&sums).enumerate() {
            let slices = Slices::gradient_sums(gpu, rank).with_centering(centers.centering(index));
            sums.iter().for_each(|sums| sums.record(recorder, slices));
        }
        for (index, (rank, scratch)) in ranks.iter().zip(&scratch).enumerate() {
            let wanted = wanted_of(rank, parameters);
            let slices = Slices::backward(gpu, rank).with_centering(centers.centering(index));
            let mut dispatch = merge.gradient(index, centers.of_batch, wanted);
            let mut sums_of_rank: &BufferSlice = &locals;
            if let Some((combine, tiles)) = merging(&sums) {
                (dispatch, sums_of_rank) = (dispatch.of_tiles(combine), tiles);
            }
            recorder.dispatch(&dispatch, |role| match role {
                Role::Locals | Role::Tiles => sums_of_rank,
                Role::RankWeights => &centers.rank_weights,
                Role::GradCentering => &scratch.grad_centering,
                _ => slices.role(role),
            });
        }
        write(gpu, recorder, ranks, &scratch);
    })
}

/// The pass over a single rank whose channels have one tile each: what sums its gradients goes on.
fn finish(
    gpu: &Gpu,
    rank: &BackwardRank<'_>,
    centers: &Centers,
    (sums, scratch): (&[Dispatch<TileParams>], &Scratch),
    encoding: Option<Encoding<'_>>,
) -> Result<(), Error> {
    let slices = Slices::gradient_sums(gpu, rank).with_centering(centers.centering(0));
    send(gpu, "backward", encoding, |recorder| {
        for dispatch in sums {
            recorder.dispatch(dispatch, |role| match role {
                Role::GradCentering => &*scratch.grad_centering,
                _ => slices.role(role),
            });
        }
        write(gpu, recorder, std::slice::from_ref(rank), std::slice::from_ref(scratch));
    })
}

/// Which gradients of the parameters a rank wants.
fn wanted_of(rank: &BackwardRank<'_>, of_all: ParameterGradients) -> ParameterGradients {
    ParameterGradients {
        weight: rank.grad_weight.is_some(),
        bias: rank.grad_bias.is_some(),
        ..of_all
    }
}

/// Records what writes the gradients of inputs and residuals of every rank.
fn write(gpu: &Gpu, recorder: &mut Recorder<'_>, ranks: &[BackwardRank<'_>], scratch: &[Scratch]) {
    for (rank, scratch) in ranks.iter().zip(scratch) {
        let slices = Slices::backward(gpu, rank).with_centering(&scratch.grad_centering);
        let slices = slices.with_unwanted(scratch.unwanted.as_deref());
        let dispatches = rank.apply.iter().flat_map(|plan| &plan.dispatches);
        dispatches.for_each(|dispatch| recorder.dispatch(dispatch, |role| slices.role(role)));
    }
}

/// The same with sums of integers: the largest gradients, then the sums.
fn exact(
    gpu: &Gpu,
    ranks: &mut [BackwardRank<'_>],
    channels: usize,
    centers: &Centers,
    parameters: ParameterGradients,
    encoding: Option<Encoding<'_>>,
) -> Result<(), Error> {
    let memory = encoding.as_ref().map(|encoding| encoding.memory);
    let merge = &centers.merge;
    ranks.iter_mut().for_each(note_writes);
    let scratch = ranks.iter().map(|rank| Scratch::new(gpu, memory, rank, channels));
    let scratch: Vec<Scratch> = scratch.collect::<Result<_, _>>()?;
    let plans = ranks.iter_mut().map(|rank| rank.sums.take()).collect();
    let integers = Integers::new(gpu, memory, merge, plans, &[Section::Integers])?;
    let grids = (0..merge.results()).map(|_| gpu.scratch_of(memory, merge.grids_bytes()));
    let grids: Vec<Lease> = grids.collect::<Result<_, _>>()?;
    let of_rank = |rank: usize| &*grids[rank.min(grids.len() - 1)];
    let of_x = |rank: usize| centers.grids(rank).unwrap_or(gpu.dummy(0));
    send(gpu, "backward", encoding, |recorder| {
        for taken in [Taken::Range, Taken::Integers] {
            for (index, rank) in ranks.iter().enumerate() {
                let slices = Slices::gradient_sums(gpu, rank);
                let slices = slices.with_centering(centers.centering(index));
                let slices = slices.with_grids(of_rank(index));
                integers.record(recorder, index, (taken, Section::Integers), slices);
            }
            for result in (0..merge.results()).filter(|_| taken == Taken::Range) {
                recorder.dispatch(&merge.grad_grids(result), |role| {
                    integers.role(role, centers, |role| match role {
                        Role::GradGrids => of_rank(result),
                        _ => of_x(result),
                    })
                });
            }
        }
        for (index, (rank, scratch)) in ranks.iter().zip(&scratch).enumerate() {
            let slices = Slices::backward(gpu, rank).with_centering(centers.centering(index));
            let slices = slices.with_grids(of_x(index));
            recorder.dispatch(&merge.exact_gradient(index, wanted_of(rank, parameters)), |role| {
                integers.role(role, centers, |role| match role {
                    Role::GradGrids => of_rank(index),
                    Role::GradCentering => &scratch.grad_centering,
                    _ => slices.role(role),
                })
            });
        }
        write(gpu, recorder, ranks, &scratch);
    })
}
