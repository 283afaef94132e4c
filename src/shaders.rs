//! WGSL text of every kernel variant, with the parameter struct and the binding table of each kernel.
//!
//! Knows no plan and no device: the plan picks kernels, `gpu` compiles what [`Variant::source`] returns. A test reflects
//! every variant and compares it with the tables here.

mod constants;
mod params;
mod storage;
mod text;
mod variant;

pub use constants::Constants;
pub use params::{CombineParams, FinalizeGradParams, FinalizeParams, ParamsLayout, TileParams};
pub use storage::Storage;
pub use variant::Variant;

/// Invocations of every workgroup: the portable maximum.
pub const WORKGROUP_SIZE: u32 = 256;
/// Values of a tile that one invocation of a kernel that sums holds in registers at most.
pub const SUMMED_PER_ROW: u32 = 16;
/// Values of a tile that one invocation of a kernel that writes goes through at most: a word of a mask.
pub const WRITTEN_PER_ROW: u32 = 32;
/// Words of 16-bit outputs that one invocation writes.
pub const WORDS_PER_INVOCATION: u32 = 8;
/// The same where a mask is kept: those of one of its words.
pub const WORDS_PER_MASK_WORD: u32 = 16;

/// A compute kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Partial statistics of every tile.
    PartialStats,
    /// Local statistics of the rank from those of its tiles.
    CombineStats,
    /// The normalized output, f32.
    Normalize,
    /// The normalized output, 16-bit.
    NormalizeWords,
    /// Partial gradient sums of every tile.
    PartialGradSums,
    /// Local gradient sums of the rank from those of its tiles.
    CombineGradSums,
    /// The gradient of the input, f32.
    GradInput,
    /// The gradient of the input, 16-bit.
    GradInputWords,
    /// The gradients of the input and of the residual, f32.
    GradInputAndResidual,
    /// The gradients of the input and of the residual, 16-bit.
    GradInputAndResidualWords,
    /// The statistics of ranks on one device merged, and the running statistics.
    FinalizeStats,
    /// What normalizes with the running statistics.
    CenterRunning,
    /// The gradient sums of ranks on one device merged, and the gradients of the parameters.
    FinalizeGrad,
}

/// How a kernel uses a storage buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reads it.
    Read,
    /// Writes it.
    Write,
}

/// A storage buffer of a kernel. Its binding number is its position in the table plus 1; binding 0 is the parameter struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Name in the shader.
    pub name: &'static str,
    /// How the kernel uses it.
    pub access: Access,
    /// Bytes of one array element; `None` where the storage type of an activation decides.
    pub element_bytes: Option<u32>,
}

/// An activation, of a storage type that the variant names.
const fn activation(name: &'static str) -> Binding {
    Binding { name, access: Access::Read, element_bytes: None }
}

const fn reads(name: &'static str, element_bytes: u32) -> Binding {
    Binding { name, access: Access::Read, element_bytes: Some(element_bytes) }
}

const fn writes(name: &'static str, element_bytes: u32) -> Binding {
    Binding { name, access: Access::Write, element_bytes: Some(element_bytes) }
}

const PARTIAL_STATS_BUFFERS: [Binding; 2] = [activation("x"), writes("partial", 16)];
const COMBINE_BUFFERS: [Binding; 2] = [reads("partial", 16), writes("local", 16)];
const FINALIZE_STATS_BUFFERS: [Binding; 4] =
    [reads("locals", 16), reads("shares", 8), writes("running", 16), writes("centering", 12)];
const CENTER_RUNNING_BUFFERS: [Binding; 2] = [reads("running", 16), writes("centering", 12)];
const FINALIZE_GRAD_BUFFERS: [Binding; 6] = [
    reads("locals", 16),
    reads("shares", 8),
    reads("center", 12),
    writes("grad_centering", 20),
    writes("grad_weight", 4),
    writes("grad_bias", 4),
];
/// The last one only where a mask is kept.
const NORMALIZE_BUFFERS: [Binding; 7] = [
    activation("x"),
    activation("residual"),
    reads("centering", 12),
    reads("weight", 4),
    reads("bias", 4),
    writes("y", 4),
    writes("mask", 4),
];

/// What decides on the side of the activation in backward: the residual, or forward's mask.
const fn side(from_mask: bool) -> Binding {
    if from_mask { reads("mask", 4) } else { activation("residual") }
}

const fn partial_grad_sums_buffers(from_mask: bool) -> [Binding; 7] {
    [
        activation("grad_output"),
        activation("x"),
        side(from_mask),
        reads("centering", 12),
        reads("weight", 4),
        reads("bias", 4),
        writes("partial", 16),
    ]
}

/// The last one only where the gradient of the residual is wanted.
const fn gradient_buffers(from_mask: bool) -> [Binding; 8] {
    [
        activation("grad_output"),
        activation("x"),
        side(from_mask),
        reads("centering", 20),
        reads("weight", 4),
        reads("bias", 4),
        writes("grad_input", 4),
        writes("grad_residual", 4),
    ]
}

const PARTIAL_GRAD_SUMS_BUFFERS: [[Binding; 7]; 2] =
    [partial_grad_sums_buffers(false), partial_grad_sums_buffers(true)];
const GRADIENT_BUFFERS: [[Binding; 8]; 2] = [gradient_buffers(false), gradient_buffers(true)];

impl Kernel {
    /// Every kernel.
    pub const ALL: &'static [Self] = &[
        Self::PartialStats,
        Self::CombineStats,
        Self::Normalize,
        Self::NormalizeWords,
        Self::PartialGradSums,
        Self::CombineGradSums,
        Self::GradInput,
        Self::GradInputWords,
        Self::GradInputAndResidual,
        Self::GradInputAndResidualWords,
        Self::FinalizeStats,
        Self::CenterRunning,
        Self::FinalizeGrad,
    ];

    /// Name of the kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::PartialStats => "partial_stats",
            Self::CombineStats => "combine_stats",
            Self::Normalize => "normalize",
            Self::NormalizeWords => "normalize_words",
            Self::PartialGradSums => "partial_grad_sums",
            Self::CombineGradSums => "combine_grad_sums",
            Self::GradInput => "grad_input",
            Self::GradInputWords => "grad_input_words",
            Self::GradInputAndResidual => "grad_input_and_residual",
            Self::GradInputAndResidualWords => "grad_input_and_residual_words",
            Self::FinalizeStats => "finalize_stats",
            Self::CenterRunning => "center_running",
            Self::FinalizeGrad => "finalize_grad",
        }
    }

    /// The storage buffers in binding order, without a mask or with one.
    fn bindings(self, mask: bool) -> &'static [Binding] {
        let side = usize::from(mask);
        match self {
            Self::PartialStats => &PARTIAL_STATS_BUFFERS,
            Self::CombineStats | Self::CombineGradSums => &COMBINE_BUFFERS,
            Self::Normalize | Self::NormalizeWords => NORMALIZE_BUFFERS.split_at(6 + side).0,
            Self::PartialGradSums => &PARTIAL_GRAD_SUMS_BUFFERS[side],
            Self::GradInput | Self::GradInputWords => GRADIENT_BUFFERS[side].split_at(7).0,
            Self::GradInputAndResidual | Self::GradInputAndResidualWords => &GRADIENT_BUFFERS[side],
            Self::FinalizeStats => &FINALIZE_STATS_BUFFERS,
            Self::CenterRunning => &CENTER_RUNNING_BUFFERS,
            Self::FinalizeGrad => &FINALIZE_GRAD_BUFFERS,
        }
    }

    /// Whether it works on what is kept per channel alone, and sees no activation.
    fn finalizes(self) -> bool {
        matches!(self, Self::FinalizeStats | Self::CenterRunning | Self::FinalizeGrad)
    }

    /// Whether it writes or reads a mask of the activation where there is one.
    fn has_side(self) -> bool {
        !self.finalizes() && !matches!(self, Self::PartialStats | Self::CombineStats | Self::CombineGradSums)
    }

    /// Whether it has a variant that reads and writes four values at a time: that of any storage type.
    fn has_quads(self) -> bool {
        !self.writes_words() && !self.finalizes() && !matches!(self, Self::CombineStats | Self::CombineGradSums)
    }

    /// Whether it merges what the rows of a tile hold.
    fn merges_rows(self) -> bool {
        matches!(self, Self::PartialStats | Self::PartialGradSums)
    }

    /// Whether it reads the upstream gradient.
    fn reads_gradient(self) -> bool {
        self.writes_gradient() || self == Self::PartialGradSums
    }

    /// Whether it writes the gradient of x.
    fn writes_gradient(self) -> bool {
        self.over().is_some_and(|[source, _]| source == "grad_output")
    }

    /// The activation that may be written over: its name, and that of what is written.
    fn over(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Normalize | Self::NormalizeWords => Some(["x", "y"]),
            Self::PartialStats | Self::CombineStats | Self::PartialGradSums | Self::CombineGradSums => None,
            _ if self.finalizes() => None,
            _ => Some(["grad_output", "grad_input"]),
        }
    }

    /// Layout of the parameter struct at binding 0.
    pub fn params_layout(self) -> ParamsLayout {
        match self {
            Self::CombineStats | Self::CombineGradSums => CombineParams::LAYOUT,
            Self::FinalizeStats | Self::CenterRunning => FinalizeParams::LAYOUT,
            Self::FinalizeGrad => FinalizeGradParams::LAYOUT,
            _ => TileParams::LAYOUT,
        }
    }

    /// Whether it writes 16-bit elements.
    fn writes_words(self) -> bool {
        matches!(self, Self::NormalizeWords | Self::GradInputWords | Self::GradInputAndResidualWords)
    }
}
