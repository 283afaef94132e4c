//! From a shape to a plan: which kernels run, over how many workgroups, with which buffer in which
//! role.
//!
//! Plain arithmetic on plain data: a plan can be printed, compared and checked against a device's
//! limits without a GPU. Knows no wgpu type and no shader source; `engine` carries plans out.

mod accumulate;
mod apply;
mod caps;
mod finalize;
mod flat;
mod grid;
mod mask;
mod partition;
mod run;
mod sums;
mod window;

pub use accumulate::accumulation;
pub use apply::{ApplyPlan, Gradient};
pub use caps::DeviceCaps;
pub use finalize::{
    DoubleParameters, Merge, ParameterGradients, RankWeight, RunningUpdate, Section,
    finalizing_variants,
};
pub use partition::Partition;
pub use sums::{SumsPlan, Taken};
pub use window::{Span, Window};

use std::ops::Range;

use crate::dtype::DType;
use crate::epilogue::Epilogue;
use crate::shaders::{Active, LENGTHS, Storage, Upstream, Variant};
pub use crate::shaders::{
    CombineParams, DoubleGradient, FinalizeParams, MaskOrder, Role, RunningForm, TileParams,
};
use crate::shape::{Padding, Shape};

/// Bytes of one (pivot, sum, squares, flag) quadruple of a tile or a rank, per channel.
pub const CHANNEL_SUMS_BYTES: u64 = 16;

/// Bytes of (Σs, Σt, Σs·t) of integers of a rank, per channel: 64, 64 and 128 bits.
pub const CHANNEL_INTEGERS_BYTES: u64 = 32;

/// Bytes of lengths that a kernel binds.
pub const LENGTHS_BYTES: u64 = 4 * LENGTHS;
/// Samples at whose multiples bound lengths begin: 256 bytes, the alignment of a uniform buffer.
const LENGTHS_GRAIN: u64 = 64;
/// Padded samples that one dispatch walks: lengths are bound from a multiple of the grain on.
const MOST_SAMPLES: u64 = LENGTHS - LENGTHS_GRAIN;

/// Where the lengths are bound from for a dispatch whose first sample is this one, in bytes.
fn lengths_from(sample: u64) -> u64 {
    4 * (sample / LENGTHS_GRAIN * LENGTHS_GRAIN)
}

/// What is uploaded for the kernels of a padded batch: positions that count, by sample, and as many
/// zeros as a binding may reach beyond.
pub fn lengths_of(padding: &Padding) -> Vec<u32> {
    let positions = padding.positions();
    let mut lengths: Vec<u32> =
        positions.iter().map(|&length| u32::try_from(length).unwrap_or(u32::MAX)).collect();
    lengths.resize(positions.len() + LENGTHS as usize, 0);
    lengths
}

/// An activation as plans see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation<'a> {
    /// Its shape and layout.
    pub shape: &'a Shape,
    /// How its elements are stored.
    pub dtype: DType,
}

impl Activation<'_> {
    /// Bytes of the tensor, in whole words.
    pub fn bytes(&self) -> u64 {
        self.shape.elements().saturating_mul(self.dtype.size_bytes()).saturating_add(3) / 4 * 4
    }
}

/// What a dispatch binds of every activation: bytes from the start of its tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Of x and the residual.
    pub x: Range<u64>,
    /// Of what is written.
    pub output: Range<u64>,
    /// Of grad_output.
    pub g: Range<u64>,
    /// Of the lengths of padded samples.
    pub lengths: Range<u64>,
}

impl Parts {
    /// Of a dispatch without activations.
    const NONE: Self = Self { x: 0..0, output: 0..0, g: 0..0, lengths: 0..0 };

    /// The bytes of a span, in units of so many elements, of x, of what is written, and of
    /// grad_output.
    fn of(span: &Span, unit: u64, activations: [Activation<'_>; 3]) -> Self {
        let [x, output, g] = activations.map(|activation| {
            let bytes = unit * activation.dtype.size_bytes();
            span.elements.start * bytes..(span.elements.end * bytes).next_multiple_of(4)
        });
        let lengths =
            lengths_from(span.first_sample)..lengths_from(span.first_sample) + LENGTHS_BYTES;
        Self { x, output, g, lengths }
    }

    /// What is bound of the tensor in a role; `None` for all of it.
    pub fn of_role(&self, role: Role) -> Option<Range<u64>> {
        match role {
            Role::Input | Role::Residual | Role::Cotangent => Some(self.x.clone()),
            Role::Output | Role::GradInput | Role::GradResidual => Some(self.output.clone()),
            Role::GradOutput => Some(self.g.clone()),
            Role::Lengths => Some(self.lengths.clone()),
            _ => None,
        }
    }
}

/// What the layer has and how it ends, as kernels see it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerFlags {
    /// Whether a weight is bound.
    pub weight: bool,
    /// Whether a bias is bound.
    pub bias: bool,
    /// What happens to the normalized value.
    pub epilogue: Epilogue,
    /// The mask of the activation that forward keeps or backward reads, if there is one.
    pub mask: Option<MaskOrder>,
}

impl LayerFlags {
    /// Writes what is asked once per invocation into the parameters.
    fn set(self, params: &mut TileParams) {
        params.has_weight = self.weight.into();
        params.has_bias = self.bias.into();
        params.slope = self.epilogue.slope();
        params.curve = self.epilogue.curve().unwrap_or_default();
    }

    /// Copies what [`set`](Self::set) writes.
    fn copy(from: &TileParams, to: &mut TileParams) {
        let TileParams { has_weight, has_bias, slope, curve, .. } = *from;
        *to = TileParams { has_weight, has_bias, slope, curve, ..*to };
    }

    /// What double backward reads, all of it stored as x, by integer arithmetic.
    fn upstream_like(self, x: DType, grid: &grid::Grid) -> Upstream {
        let storage = Storage::packed(x);
        Upstream {
            x: storage,
            grad_output: storage,
            elements: grid.elements(),
            strided: false,
            active: self.active(),
        }
    }

    /// How backward knows where the activation was active.
    fn active(self) -> Active {
        match self.mask {
            _ if !self.epilogue.activates() => Active::Everywhere,
            Some(order) => Active::Masked(order),
            None => Active::Recomputed {
                residual: self.epilogue.adds_residual(),
                curved: self.epilogue.curve().is_some(),
            },
        }
    }
}

/// One dispatch: a kernel, its parameters and its workgroups. The kernel's bindings say what each
/// buffer is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch<P> {
    /// The kernel for the storage types at hand; whether its buffers are one shows when they are
    /// bound.
    pub variant: Variant,
    /// Contents of the parameter struct.
    pub params: P,
    /// Workgroups in x and y.
    pub workgroups: [u32; 2],
    /// What is bound of the activations among them.
    pub parts: Parts,
}

#[cfg(test)]
mod tests;
