//! Double backward: the sums of backward of every rank, its own, their merge, the gradients.

use super::super::DoublePair;
use super::super::gpu::{Slices, note_write};
use super::{Centers, Encoding, Sums, send};
use crate::engine::{BackwardRank, DoubleRank};
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Memory, Recorder};
use crate::plan::{DoubleGradient, DoubleParameters, Merge, ParameterGradients, Role};
use crate::stats::{DoubleCentering, GradCentering};

/// The memory of all ranks.
struct Shared {
    locals: Lease,
    double_locals: Lease,
    cotangents: Lease,
}

/// Memory of a rank besides its tensors.
struct Scratch {
    gradient_sums: Option<Sums>,
    double_sums: Option<Sums>,
    grad_centering: Lease,
    double_centering: Lease,
}

/// Records and, without an encoder of the application, submits the whole of double backward.
pub(crate) fn double_backward(
    gpu: &Gpu,
    ranks: &mut [DoublePair<'_>],
    channels: usize,
    centers: &Centers,
    parameters: DoubleParameters,
    encoding: Option<Encoding<'_>>,
) -> Result<(), Error> {
    let memory = encoding.as_ref().map(|encoding| encoding.memory);
    let bytes = centers.merge.bytes();
    let shared = Shared {
        locals: gpu.scratch_of(memory, bytes)?,
        double_locals: gpu.scratch_of(memory, bytes)?,
        cotangents: gpu.scratch_of(memory, bytes)?,
    };
    let mut scratch = Vec::with_capacity(ranks.len());
    for (index, rank) in ranks.iter_mut().enumerate() {
        let double = &mut rank.double;
        [&mut double.input, &mut double.grad_output, &mut double.weight]
            .into_iter()
            .for_each(note_write);
        scratch.push(shared.scratch(gpu, memory, (index, rank), channels, &centers.merge)?);
    }
    let pass = Pass { gpu, centers, parameters, shared: &shared };
    send(gpu, "double backward", encoding, |recorder| {
        let all = || ranks.iter().zip(&scratch).enumerate();
        for (index, (rank, scratch)) in all() {
            pass.sum_gradients(recorder, index, &rank.backward, scratch);
            pass.gather(recorder, index, &rank.double);
        }
        for (index, (rank, scratch)) in all() {
            pass.sum_cotangents(recorder, index, &rank.double, scratch);
        }
        for (index, (rank, scratch)) in all() {
            pass.write(recorder, index, &rank.double, scratch);
        }
    })
}

impl Shared {
    fn scratch(
        &self,
        gpu: &Gpu,
        memory: Option<&Memory>,
        (index, rank): (usize, &mut DoublePair<'_>),
        channels: usize,
        merge: &Merge,
    ) -> Result<Scratch, Error> {
        let slot = |of: &BufferSlice| of.part(merge.slot(index));
        let (gradient, double) = (rank.backward.sums.take(), rank.double.sums.take());
        let of_channels = |bytes: usize| gpu.scratch_of(memory, (channels * bytes) as u64);
        Ok(Scratch {
            gradient_sums: Sums::new(gpu, memory, gradient, slot(&self.locals))?,
            double_sums: Sums::new(gpu, memory, double, slot(&self.double_locals))?,
            grad_centering: of_channels(size_of::<GradCentering>())?,
            double_centering: of_channels(size_of::<DoubleCentering>())?,
        })
    }
}

/// The settings and memory that all ranks share.
struct Pass<'a> {
    gpu: &'a Gpu,
    centers: &'a Centers,
    parameters: DoubleParameters,
    shared: &'a Shared,
}

impl Pass<'_> {
    /// The sums of backward of a rank.
    fn sum_gradients(
        &self,
        recorder: &mut Recorder<'_>,
        index: usize,
        rank: &BackwardRank<'_>,
        scratch: &Scratch,
    ) {
        let centering = self.centers.centering(index);
        let slices = Slices::gradient_sums(self.gpu, rank).with_centering(centering);
        scratch.gradient_sums.iter().for_each(|sums| sums.record(recorder, slices));
    }

    /// The cotangents of a rank's parameters beside those of the others.
    fn gather(&self, recorder: &mut Recorder<'_>, index: usize, rank: &DoubleRank<'_>) {
        if !self.parameters.has_parameters.contains(&true) {
            return;
        }
        let merge = &self.centers.merge;
        let gathered = self.shared.cotangents.part(merge.cotangents_slot(index));
        let slices = Slices::double(self.gpu, rank);
        recorder.dispatch(&merge.cotangents(self.parameters.has_parameters), |role| match role {
            Role::Cotangents => &gathered,
            _ => slices.role(role),
        });
    }

    /// The sums of a rank with its cotangent, about the mean gradient of all ranks.
    fn sum_cotangents(
        &self,
        recorder: &mut Recorder<'_>,
        index: usize,
        rank: &DoubleRank<'_>,
        scratch: &Scratch,
    ) {
        let Some(sums) = &scratch.double_sums else { return };
        let Centers { merge, rank_weights, of_batch, .. } = self.centers;
        let none_wanted = ParameterGradients::default();
        let slices = Slices::double(self.gpu, rank);
        let center = slices.with_centering(self.centers.centering(index));
        recorder.dispatch(&merge.gradient(index, *of_batch, none_wanted), |role| match role {
            Role::Locals => &self.shared.locals,
            Role::RankWeights => rank_weights,
            Role::GradCentering => &scratch.grad_centering,
            // No gradient of the parameters: that of double backward comes later.
            Role::GradWeight => self.gpu.dummy(0),
            _ => center.role(role),
        });
        sums.record(recorder, slices.with_centering(&scratch.grad_centering));
    }

    /// The merge for a rank, and its gradients.
    fn write(
        &self,
        recorder: &mut Recorder<'_>,
        index: usize,
        rank: &DoubleRank<'_>,
        scratch: &Scratch,
    ) {
        let Centers { merge, rank_weights, of_batch, .. } = self.centers;
        let wanted = DoubleParameters { weight: rank.weight.is_some(), ..self.parameters };
        let slices = Slices::double(self.gpu, rank);
        let center = slices.with_centering(self.centers.centering(index));
        recorder.dispatch(&merge.double(index, *of_batch, wanted), |role| match role {
            Role::Locals => &self.shared.locals,
            Role::DoubleLocals => &self.shared.double_locals,
            Role::Cotangents => &self.shared.cotangents,
            Role::RankWeights => rank_weights,
            Role::DoubleCentering => &scratch.double_centering,
            _ => center.role(role),
        });
        let slices = slices.with_centering(&scratch.double_centering);
        for (of, plan) in &rank.applies {
            let slices = slices.with_output(match of {
                DoubleGradient::Input => rank.input.as_deref(),
                DoubleGradient::GradOutput => rank.grad_output.as_deref(),
            });
            let dispatches = plan.dispatches.iter();
            dispatches.for_each(|dispatch| recorder.dispatch(dispatch, |role| slices.role(role)));
        }
    }
}
