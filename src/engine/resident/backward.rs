//! Backward: gradient sums of every rank, their merge, the gradients of parameters, inputs and
//! residuals.

use super::super::BackwardRank;
use super::super::gpu::{Slices, note_write, unwanted};
use super::{Centers, Encoding, Sums, send};
use crate::error::Error;
use crate::gpu::{Gpu, Lease};
use crate::plan::{ParameterGradients, Role};
use crate::stats::GradCentering;

/// What a rank needs beside its tensors.
struct Scratch {
    sums: Option<Sums>,
    grad_centering: Lease,
    unwanted: Option<Lease>,
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
    let locals = gpu.scratch_of(memory, merge.bytes())?;
    let grad_center_bytes = (channels * size_of::<GradCentering>()) as u64;
    let mut scratch = Vec::with_capacity(ranks.len());
    for (index, rank) in ranks.iter_mut().enumerate() {
        let targets = [
            &mut rank.grad_input,
            &mut rank.grad_residual,
            &mut rank.grad_weight,
            &mut rank.grad_bias,
        ];
        targets.into_iter().for_each(note_write);
        scratch.push(Scratch {
            sums: Sums::new(gpu, memory, rank.sums.take(), locals.part(merge.slot(index)))?,
            grad_centering: gpu.scratch_of(memory, grad_center_bytes)?,
            unwanted: if rank.apply.is_some() { unwanted(gpu, rank, memory)? } else { None },
        });
    }
    send(gpu, "backward", encoding, |recorder| {
        for (index, (rank, scratch)) in ranks.iter().zip(&scratch).enumerate() {
            let slices = Slices::gradient_sums(gpu, rank).with_centering(centers.centering(index));
            scratch.sums.iter().for_each(|sums| sums.record(recorder, slices));
        }
        for (index, (rank, scratch)) in ranks.iter().zip(&scratch).enumerate() {
            let wanted = ParameterGradients {
                weight: rank.grad_weight.is_some(),
                bias: rank.grad_bias.is_some(),
                ..parameters
            };
            let slices = Slices::backward(gpu, rank).with_centering(centers.centering(index));
            recorder.dispatch(
                &merge.gradient(index, centers.of_batch, wanted),
                |role| match role {
                    Role::Locals => &locals,
                    Role::RankWeights => &centers.rank_weights,
                    Role::GradCentering => &scratch.grad_centering,
                    _ => slices.role(role),
                },
            );
        }
        for (rank, scratch) in ranks.iter().zip(&scratch) {
            let slices = Slices::backward(gpu, rank).with_centering(&scratch.grad_centering);
            let slices = slices.with_unwanted(scratch.unwanted.as_deref());
            let dispatches = rank.apply.iter().flat_map(|plan| &plan.dispatches);
            dispatches.for_each(|dispatch| recorder.dispatch(dispatch, |role| slices.role(role)));
        }
    })
}
