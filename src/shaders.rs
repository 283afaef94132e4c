//! WGSL text of every kernel variant, with the parameter struct and the binding table of each kernel.
//!
//! Knows no plan and no device: the plan picks kernels, `gpu` compiles what [`Variant::source`] returns. A test reflects
//! every variant and compares it with the tables here.

mod params;
mod variant;

pub use params::{CombineParams, ParamsLayout, TileParams};
pub use variant::{Storage, Variant};

/// Invocations of every workgroup: the portable maximum.
pub const WORKGROUP_SIZE: u32 = 256;
/// Values that one invocation of a tile kernel holds in registers.
pub const VALUES_PER_ROW: u32 = 16;
/// Words of 16-bit outputs that one invocation writes.
pub const WORDS_PER_INVOCATION: u32 = 8;

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
const NORMALIZE_BUFFERS: [Binding; 6] = [
    activation("x"),
    activation("residual"),
    reads("centering", 12),
    reads("weight", 4),
    reads("bias", 4),
    writes("y", 4),
];
const PARTIAL_GRAD_SUMS_BUFFERS: [Binding; 7] = [
    activation("grad_output"),
    activation("x"),
    activation("residual"),
    reads("centering", 12),
    reads("weight", 4),
    reads("bias", 4),
    writes("partial", 16),
];
/// The last one only where the gradient of the residual is wanted.
const GRADIENT_BUFFERS: [Binding; 8] = [
    activation("grad_output"),
    activation("x"),
    activation("residual"),
    reads("centering", 20),
    reads("weight", 4),
    reads("bias", 4),
    writes("grad_input", 4),
    writes("grad_residual", 4),
];

const TILE: &str = include_str!("../shaders/parts/tile.wgsl");
const REDUCE: &str = include_str!("../shaders/parts/reduce.wgsl");
const COMBINE: &str = include_str!("../shaders/parts/combine.wgsl");
const CENTERING: &str = include_str!("../shaders/parts/centering.wgsl");
const LINE: &str = include_str!("../shaders/parts/line.wgsl");
const ACTIVATION: &str = include_str!("../shaders/parts/activation.wgsl");
const UPSTREAM: &str = include_str!("../shaders/parts/upstream.wgsl");
const RESIDUAL_NONE: &str = include_str!("../shaders/parts/residual_none.wgsl");
const RESIDUAL_F32: &str = include_str!("../shaders/parts/residual_f32.wgsl");
const RESIDUAL_WORDS: &str = include_str!("../shaders/parts/residual_words.wgsl");
const NORMALIZE: &str = include_str!("../shaders/normalize.wgsl");
const NORMALIZE_WORDS: &str = include_str!("../shaders/normalize_words.wgsl");
const GRAD_INPUT: &str = include_str!("../shaders/grad_input.wgsl");
const GRAD_INPUT_WORDS: &str = include_str!("../shaders/grad_input_words.wgsl");
const GRADIENT: &str = include_str!("../shaders/parts/gradient.wgsl");
const WORDS: &str = include_str!("../shaders/parts/words.wgsl");
const FINITE: &str = include_str!("../shaders/parts/finite.wgsl");

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
        }
    }

    /// The storage buffers in binding order.
    pub fn bindings(self) -> &'static [Binding] {
        match self {
            Self::PartialStats => &PARTIAL_STATS_BUFFERS,
            Self::CombineStats | Self::CombineGradSums => &COMBINE_BUFFERS,
            Self::Normalize | Self::NormalizeWords => &NORMALIZE_BUFFERS,
            Self::PartialGradSums => &PARTIAL_GRAD_SUMS_BUFFERS,
            Self::GradInput | Self::GradInputWords => GRADIENT_BUFFERS.split_at(7).0,
            Self::GradInputAndResidual | Self::GradInputAndResidualWords => &GRADIENT_BUFFERS,
        }
    }

    /// Layout of the parameter struct at binding 0.
    pub fn params_layout(self) -> ParamsLayout {
        match self {
            Self::CombineStats | Self::CombineGradSums => CombineParams::LAYOUT,
            _ => TileParams::LAYOUT,
        }
    }

    /// Whether it writes 16-bit elements.
    fn writes_words(self) -> bool {
        matches!(self, Self::NormalizeWords | Self::GradInputWords | Self::GradInputAndResidualWords)
    }

    /// The texts that make up the kernel, in order, but for what depends on storage types.
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::PartialStats => &[TILE, FINITE, REDUCE, include_str!("../shaders/partial_stats.wgsl")],
            Self::CombineStats => &[COMBINE, REDUCE, include_str!("../shaders/combine_stats.wgsl")],
            Self::Normalize => &[TILE, FINITE, CENTERING, LINE, ACTIVATION, NORMALIZE],
            Self::NormalizeWords => &[TILE, FINITE, CENTERING, LINE, ACTIVATION, WORDS, NORMALIZE_WORDS],
            Self::PartialGradSums => {
                const KERNEL: &str = include_str!("../shaders/partial_grad_sums.wgsl");
                &[TILE, FINITE, REDUCE, CENTERING, LINE, ACTIVATION, UPSTREAM, KERNEL]
            }
            Self::CombineGradSums => &[COMBINE, REDUCE, include_str!("../shaders/combine_grad_sums.wgsl")],
            Self::GradInput => &[TILE, FINITE, LINE, ACTIVATION, UPSTREAM, GRADIENT, RESIDUAL_NONE, GRAD_INPUT],
            Self::GradInputAndResidual => {
                &[TILE, FINITE, LINE, ACTIVATION, UPSTREAM, GRADIENT, RESIDUAL_F32, GRAD_INPUT]
            }
            Self::GradInputWords => {
                &[TILE, FINITE, LINE, ACTIVATION, UPSTREAM, GRADIENT, RESIDUAL_NONE, WORDS, GRAD_INPUT_WORDS]
            }
            Self::GradInputAndResidualWords => {
                &[TILE, FINITE, LINE, ACTIVATION, UPSTREAM, GRADIENT, RESIDUAL_WORDS, WORDS, GRAD_INPUT_WORDS]
            }
        }
    }
}
