//! The storage buffers of every kernel.

mod integers;
mod merging;

use super::kernel::{Active, GradInput, Kernel, Normalize};

/// How a kernel uses a storage buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reads it.
    Read,
    /// Writes it.
    Write,
}

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// x, (N, C, L).
    Input,
    /// y, (N, C, L).
    Output,
    /// Upstream gradient, (N, C, L).
    GradOutput,
    /// Gradient of the input, (N, C, L).
    GradInput,
    /// Residual, (N, C, L), or anything where none is added.
    Residual,
    /// Gradient of the residual, (N, C, L).
    GradResidual,
    /// Cotangent of the gradient of the input, (N, C, L), or anything where there is none.
    Cotangent,
    /// Sums of every tile, (tiles, C). Where a channel has one tile, these are [`Role::Local`].
    Tiles,
    /// Sums of the rank, (C): read back by the host.
    Local,
    /// Pivot, rest and inverse deviation, (C): sent by the host, or made by the device where it
    /// merges.
    Centering,
    /// How values become integers, (C), or (C, 2) of x and of the gradients: sent by the host, or
    /// made by the device where it merges, with the statistics that gradients need behind it.
    Grids,
    /// Those of channels with far outliers, (C).
    WideGrids,
    /// Those of x and of the gradients, (C, 2), with a mark for each channel behind them.
    GradGrids,
    /// Mean, (C), in f32: for applications.
    Mean,
    /// Inverse deviation, (C), as in [`Role::Centering`]: for applications.
    InvStd,
    /// Sums of all ranks of one device, (ranks, C).
    Locals,
    /// What merges them: (ranks).
    RankWeights,
    /// Running statistics where they lie on the device, (C).
    Running,
    /// Running mean of the application, (C).
    RunningMean,
    /// Running variance of the application, (C).
    RunningVariance,
    /// [`Role::RunningMean`] after the batch.
    NextMean,
    /// [`Role::RunningVariance`] after the batch.
    NextVariance,
    /// What makes gradients on the device, (C): [`Role::Centering`] of the kernels that write them.
    GradCentering,
    /// Sums of double backward of all ranks of one device, (ranks, C).
    DoubleLocals,
    /// What makes the gradients of double backward on the device, (C): [`Role::Centering`] of the
    /// kernels that write them.
    DoubleCentering,
    /// Cotangent of the gradient of the weight, (C), or anything where there is none.
    WeightCotangent,
    /// Cotangent of the gradient of the bias, likewise.
    BiasCotangent,
    /// Both of all ranks of one device, (ranks, C); written a rank at a time.
    Cotangents,
    /// Gradient of the weight, (C).
    GradWeight,
    /// Gradient of the bias, (C).
    GradBias,
    /// Weight, (C), or anything where the layer has none.
    Weight,
    /// Bias, (C), or anything where the layer has none.
    Bias,
    /// What is added to [`Role::Total`], (C).
    Addend,
    /// What grows by [`Role::Addend`], (C).
    Total,
    /// A bit per value: where the activation was active.
    Mask,
    /// Positions that count of each sample, where samples are padded: a uniform buffer.
    Lengths,
}

/// A storage buffer of a kernel. Its binding number is its position in the table plus 1; binding 0
/// is the parameter struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What it is for.
    pub role: Role,
    /// Name in the shader.
    pub name: &'static str,
    /// How the kernel uses it.
    pub access: Access,
    /// Bytes of one array element; `None` where the storage type of an activation decides.
    pub element_bytes: Option<u32>,
}

/// An activation, of a storage type that the kernel names.
const fn activation(role: Role, name: &'static str) -> Binding {
    Binding { role, name, access: Access::Read, element_bytes: None }
}

const fn reads(role: Role, name: &'static str, element_bytes: u32) -> Binding {
    Binding { role, name, access: Access::Read, element_bytes: Some(element_bytes) }
}

const fn writes(role: Role, name: &'static str, element_bytes: u32) -> Binding {
    Binding { role, name, access: Access::Write, element_bytes: Some(element_bytes) }
}

/// An activation that is written.
const fn output(role: Role, name: &'static str) -> Binding {
    Binding { role, name, access: Access::Write, element_bytes: None }
}

const PARTIAL_STATS: [Binding; 2] =
    [activation(Role::Input, "x"), writes(Role::Tiles, "partial", 16)];
const COMBINE: [Binding; 2] = [reads(Role::Tiles, "partial", 16), writes(Role::Local, "local", 16)];
const GATHER_COTANGENTS: [Binding; 3] = [
    reads(Role::WeightCotangent, "weight_cotangent", 4),
    reads(Role::BiasCotangent, "bias_cotangent", 4),
    writes(Role::Cotangents, "cotangents", 8),
];
const FINALIZE_DOUBLE: [Binding; 7] = [
    reads(Role::Locals, "locals", 16),
    reads(Role::RankWeights, "rank_weights", 8),
    reads(Role::Centering, "center", 16),
    reads(Role::DoubleLocals, "double_locals", 16),
    reads(Role::Cotangents, "cotangents", 8),
    writes(Role::DoubleCentering, "double_centering", 64),
    writes(Role::GradWeight, "weight_gradient", 4),
];
const ACCUMULATE: [Binding; 2] =
    [reads(Role::Addend, "addend", 4), writes(Role::Total, "total", 4)];
/// The last one only where a mask is kept.
const NORMALIZE: [Binding; 7] = [
    activation(Role::Input, "x"),
    activation(Role::Residual, "residual"),
    reads(Role::Centering, "centering", 16),
    reads(Role::Weight, "weight", 4),
    reads(Role::Bias, "bias", 4),
    output(Role::Output, "y"),
    writes(Role::Mask, "mask", 4),
];

/// Where the activation was active: the residual, or forward's mask.
const fn active(from_mask: bool) -> Binding {
    if from_mask { reads(Role::Mask, "mask", 4) } else { activation(Role::Residual, "residual") }
}

const fn partial_grad_sums(from_mask: bool) -> [Binding; 7] {
    [
        activation(Role::GradOutput, "grad_output"),
        activation(Role::Input, "x"),
        active(from_mask),
        reads(Role::Centering, "centering", 16),
        reads(Role::Weight, "weight", 4),
        reads(Role::Bias, "bias", 4),
        writes(Role::Tiles, "partial", 16),
    ]
}

/// The last one only where the gradient of the residual is wanted.
const fn grad_input(from_mask: bool) -> [Binding; 8] {
    [
        activation(Role::GradOutput, "grad_output"),
        activation(Role::Input, "x"),
        active(from_mask),
        reads(Role::Centering, "centering", 24),
        reads(Role::Weight, "weight", 4),
        reads(Role::Bias, "bias", 4),
        output(Role::GradInput, "grad_input"),
        output(Role::GradResidual, "grad_residual"),
    ]
}

/// What all kernels of double backward read, with coefficients of so many bytes of a channel, and
/// what they write.
const fn double(from_mask: bool, centering_bytes: u32, written: Binding) -> [Binding; 8] {
    [
        activation(Role::GradOutput, "grad_output"),
        activation(Role::Input, "x"),
        active(from_mask),
        reads(Role::Centering, "centering", centering_bytes),
        reads(Role::Weight, "weight", 4),
        reads(Role::Bias, "bias", 4),
        activation(Role::Cotangent, "cotangent"),
        written,
    ]
}

const fn partial_double_sums(from_mask: bool) -> [Binding; 8] {
    double(from_mask, 24, writes(Role::Tiles, "partial", 16))
}

const fn double_input(from_mask: bool) -> [Binding; 8] {
    double(from_mask, 64, output(Role::GradInput, "grad_input"))
}

const PARTIAL_DOUBLE_SUMS: [[Binding; 8]; 2] =
    [partial_double_sums(false), partial_double_sums(true)];
const DOUBLE_INPUT: [[Binding; 8]; 2] = [double_input(false), double_input(true)];
const PARTIAL_GRAD_SUMS: [[Binding; 7]; 2] = [partial_grad_sums(false), partial_grad_sums(true)];
const GRAD_INPUT: [[Binding; 8]; 2] = [grad_input(false), grad_input(true)];

impl Kernel {
    /// The storage buffers in binding order.
    pub fn bindings(self) -> &'static [Binding] {
        let from_mask = usize::from(
            matches!(self.upstream(), Some(up) if matches!(up.active, Active::Masked(_))),
        );
        match self {
            Self::PartialStats { finishes: None, .. } => &PARTIAL_STATS,
            Self::PartialIntegers(..) => &integers::OF_X,
            Self::CombineStats | Self::CombineGradSums | Self::CombineIntegers => &COMBINE,
            Self::Normalize(Normalize { mask: None, .. }) => NORMALIZE.split_at(6).0,
            Self::Normalize(_) => &NORMALIZE,
            Self::PartialGradSums { finishes: None, .. } => &PARTIAL_GRAD_SUMS[from_mask],
            Self::PartialGradIntegers(_) => &integers::OF_GRADIENTS[from_mask],
            Self::GradInput(GradInput { grad_residual: false, .. }) => {
                GRAD_INPUT[from_mask].split_at(7).0
            }
            Self::GradInput(_) => &GRAD_INPUT[from_mask],
            Self::PartialDoubleSums(_) => &PARTIAL_DOUBLE_SUMS[from_mask],
            Self::DoubleInput { .. } => &DOUBLE_INPUT[from_mask],
            Self::PartialStats { .. }
            | Self::PartialGradSums { .. }
            | Self::FinalizeStats { .. }
            | Self::CenterRunning(_)
            | Self::FinalizeGrad(_) => merging::bindings(self),
            Self::FindGrids
            | Self::FindWide
            | Self::FinalizeIntegers(_)
            | Self::FindGradGrids
            | Self::FinalizeGradIntegers => integers::bindings(self),
            Self::GatherCotangents => &GATHER_COTANGENTS,
            Self::FinalizeDouble => &FINALIZE_DOUBLE,
            Self::Accumulate => &ACCUMULATE,
        }
    }
}
