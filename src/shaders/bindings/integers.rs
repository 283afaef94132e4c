//! The storage buffers of the kernels that sum integers, and of those that merge the sums on the
//! device.

use super::{Binding, Role, activation, active, reads, writes};
use crate::shaders::kernel::{Kernel, RunningForm};

pub(super) const OF_X: [Binding; 3] = [
    activation(Role::Input, "x"),
    reads(Role::Grids, "grids", 16),
    writes(Role::Tiles, "partial", 16),
];
pub(super) const OF_GRADIENTS: [[Binding; 8]; 2] = [of_gradients(false), of_gradients(true)];

const fn of_gradients(from_mask: bool) -> [Binding; 8] {
    [
        activation(Role::GradOutput, "grad_output"),
        activation(Role::Input, "x"),
        active(from_mask),
        reads(Role::Centering, "centering", 16),
        reads(Role::Weight, "weight", 4),
        reads(Role::Bias, "bias", 4),
        reads(Role::Grids, "grids", 16),
        writes(Role::Tiles, "partial", 16),
    ]
}

const LOCALS: Binding = reads(Role::Locals, "locals", 16);
const RANK_WEIGHTS: Binding = reads(Role::RankWeights, "rank_weights", 8);

const FIND_GRIDS: [Binding; 3] = [LOCALS, RANK_WEIGHTS, writes(Role::Grids, "grids", 16)];
const FIND_WIDE: [Binding; 4] = [
    LOCALS,
    RANK_WEIGHTS,
    reads(Role::Grids, "grids", 16),
    writes(Role::WideGrids, "wide_grids", 16),
];
const FIND_GRAD_GRIDS: [Binding; 4] = [
    LOCALS,
    RANK_WEIGHTS,
    reads(Role::Grids, "grids", 16),
    writes(Role::GradGrids, "grad_grids", 16),
];
const FINALIZE_INTEGERS: [Binding; 7] = [
    LOCALS,
    RANK_WEIGHTS,
    writes(Role::Running, "running", 16),
    writes(Role::Grids, "grids", 16),
    writes(Role::Centering, "centering", 16),
    writes(Role::Mean, "mean", 4),
    writes(Role::InvStd, "inv_std", 4),
];
const FINALIZE_INTEGERS_TO_VECTORS: [Binding; 8] = [
    LOCALS,
    RANK_WEIGHTS,
    reads(Role::RunningMean, "running_mean", 4),
    reads(Role::RunningVariance, "running_variance", 4),
    writes(Role::Grids, "grids", 16),
    writes(Role::Centering, "centering", 16),
    writes(Role::NextMean, "next_mean", 4),
    writes(Role::NextVariance, "next_variance", 4),
];
const FINALIZE_GRAD_INTEGERS: [Binding; 8] = [
    LOCALS,
    RANK_WEIGHTS,
    reads(Role::Centering, "center", 16),
    reads(Role::Grids, "grids", 16),
    reads(Role::GradGrids, "grad_grids", 16),
    writes(Role::GradCentering, "grad_centering", 24),
    writes(Role::GradWeight, "grad_weight", 4),
    writes(Role::GradBias, "grad_bias", 4),
];

/// Of one of these kernels; none of another.
pub(super) fn bindings(kernel: Kernel) -> &'static [Binding] {
    match kernel {
        Kernel::FindGrids => &FIND_GRIDS,
        Kernel::FindWide => &FIND_WIDE,
        Kernel::FindGradGrids => &FIND_GRAD_GRIDS,
        Kernel::FinalizeIntegers(RunningForm::Entries) => &FINALIZE_INTEGERS,
        Kernel::FinalizeIntegers(RunningForm::Vectors) => &FINALIZE_INTEGERS_TO_VECTORS,
        Kernel::FinalizeGradIntegers => &FINALIZE_GRAD_INTEGERS,
        _ => &[],
    }
}
