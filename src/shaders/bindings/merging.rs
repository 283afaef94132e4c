//! The storage buffers of kernels that merge ranks on one device, and of what stands in their place
//! where running statistics normalize.

use super::{Binding, Kernel, Role, activation, output, reads, writes};
use crate::shaders::kernel::{Active, Finish, FinishGrad, RunningForm};

/// Of kernels that merge ranks: the sums of all of them, or of the tiles of the only one.
const MERGED: [Binding; 2] = [reads(Role::Locals, "locals", 16), reads(Role::Tiles, "partial", 16)];

const fn finalize_stats(sums: Binding) -> [Binding; 6] {
    [
        sums,
        reads(Role::RankWeights, "rank_weights", 8),
        writes(Role::Running, "running", 16),
        writes(Role::Centering, "centering", 16),
        writes(Role::Mean, "mean", 4),
        writes(Role::InvStd, "inv_std", 4),
    ]
}

const fn finalize_stats_of_vectors(sums: Binding) -> [Binding; 7] {
    [
        sums,
        reads(Role::RankWeights, "rank_weights", 8),
        reads(Role::RunningMean, "running_mean", 4),
        reads(Role::RunningVariance, "running_variance", 4),
        writes(Role::Centering, "centering", 16),
        writes(Role::NextMean, "next_mean", 4),
        writes(Role::NextVariance, "next_variance", 4),
    ]
}

/// Of the kernel that sums x and makes the statistics of the only rank. The last three only where
/// it goes on to y.
const FINISH_STATS: [Binding; 8] = [
    activation(Role::Input, "x"),
    writes(Role::Running, "running", 16),
    writes(Role::Centering, "centering", 16),
    writes(Role::Mean, "mean", 4),
    writes(Role::InvStd, "inv_std", 4),
    reads(Role::Weight, "weight", 4),
    reads(Role::Bias, "bias", 4),
    output(Role::Output, "y"),
];
const FINISH_STATS_OF_VECTORS: [Binding; 6] = [
    activation(Role::Input, "x"),
    reads(Role::RunningMean, "running_mean", 4),
    reads(Role::RunningVariance, "running_variance", 4),
    writes(Role::Centering, "centering", 16),
    writes(Role::NextMean, "next_mean", 4),
    writes(Role::NextVariance, "next_variance", 4),
];

/// Of the kernel that sums gradients and makes their coefficients, or goes on to grad_input. No
/// bias, where a mask says where the activation was active.
const fn finish_grad(from_mask: bool, written: Binding) -> [Binding; 8] {
    [
        activation(Role::GradOutput, "grad_output"),
        activation(Role::Input, "x"),
        if from_mask { reads(Role::Mask, "mask", 4) } else { reads(Role::Bias, "bias", 4) },
        reads(Role::Centering, "centering", 16),
        reads(Role::Weight, "weight", 4),
        written,
        writes(Role::GradWeight, "grad_weight", 4),
        writes(Role::GradBias, "grad_bias", 4),
    ]
}

const fn finalize_grad(sums: Binding) -> [Binding; 6] {
    [
        sums,
        reads(Role::RankWeights, "rank_weights", 8),
        reads(Role::Centering, "center", 16),
        writes(Role::GradCentering, "grad_centering", 24),
        writes(Role::GradWeight, "grad_weight", 4),
        writes(Role::GradBias, "grad_bias", 4),
    ]
}

const GRAD_CENTERING: Binding = writes(Role::GradCentering, "grad_centering", 24);
const FINISH_GRAD: [[Binding; 8]; 2] =
    [finish_grad(false, GRAD_CENTERING), finish_grad(true, GRAD_CENTERING)];
const GRAD_INPUT: Binding = output(Role::GradInput, "grad_input");
const FUSED_BACKWARD: [[Binding; 8]; 2] =
    [finish_grad(false, GRAD_INPUT), finish_grad(true, GRAD_INPUT)];
const CENTER_RUNNING: [Binding; 4] = [
    reads(Role::Running, "running", 16),
    writes(Role::Centering, "centering", 16),
    writes(Role::Mean, "mean", 4),
    writes(Role::InvStd, "inv_std", 4),
];
const CENTER_RUNNING_OF_VECTORS: [Binding; 3] = [
    reads(Role::RunningMean, "running_mean", 4),
    reads(Role::RunningVariance, "running_variance", 4),
    writes(Role::Centering, "centering", 16),
];
const FINALIZE_STATS: [[Binding; 6]; 2] = [finalize_stats(MERGED[0]), finalize_stats(MERGED[1])];
const FINALIZE_STATS_OF_VECTORS: [[Binding; 7]; 2] =
    [finalize_stats_of_vectors(MERGED[0]), finalize_stats_of_vectors(MERGED[1])];
const FINALIZE_GRAD: [[Binding; 6]; 2] = [finalize_grad(MERGED[0]), finalize_grad(MERGED[1])];

pub(super) fn bindings(kernel: Kernel) -> &'static [Binding] {
    let of_tiles = usize::from(kernel.is_of_tiles());
    match kernel {
        Kernel::PartialStats { finishes: Some(finish), .. } => match finish {
            Finish::Statistics(RunningForm::Entries) => FINISH_STATS.split_at(5).0,
            Finish::Statistics(RunningForm::Vectors) => &FINISH_STATS_OF_VECTORS,
            Finish::Output { .. } => &FINISH_STATS,
        },
        Kernel::PartialGradSums { upstream, finishes, .. } => {
            let from_mask = usize::from(matches!(upstream.active, Active::Masked(_)));
            let is_fused = finishes == Some(FinishGrad::Input);
            if is_fused { &FUSED_BACKWARD[from_mask] } else { &FINISH_GRAD[from_mask] }
        }
        Kernel::CenterRunning(RunningForm::Entries) => &CENTER_RUNNING,
        Kernel::CenterRunning(RunningForm::Vectors) => &CENTER_RUNNING_OF_VECTORS,
        Kernel::FinalizeStats { running: RunningForm::Entries, .. } => &FINALIZE_STATS[of_tiles],
        Kernel::FinalizeStats { .. } => &FINALIZE_STATS_OF_VECTORS[of_tiles],
        _ => &FINALIZE_GRAD[of_tiles],
    }
}
