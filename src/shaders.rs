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

const TILE: &str = include_str!("../shaders/parts/tile.wgsl");
const REDUCE: &str = include_str!("../shaders/parts/reduce.wgsl");
const COMBINE: &str = include_str!("../shaders/parts/combine.wgsl");
const CENTERING: &str = include_str!("../shaders/parts/centering.wgsl");
const NORMALIZED: &str = include_str!("../shaders/parts/normalized.wgsl");
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
    ];

    /// Name of the kernel and of its file.
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
        }
    }

    /// The storage buffers in binding order.
    pub fn bindings(self) -> &'static [Binding] {
        match self {
            Self::PartialStats => const { &[activation("x"), writes("partial", 16)] },
            Self::CombineStats | Self::CombineGradSums => const { &[reads("partial", 16), writes("local", 16)] },
            Self::Normalize | Self::NormalizeWords => {
                const { &[activation("x"), reads("centering", 12), reads("weight", 4), reads("bias", 4), writes("y", 4)] }
            }
            Self::PartialGradSums => {
                const { &[activation("grad_output"), activation("x"), reads("centering", 12), writes("partial", 16)] }
            }
            Self::GradInput | Self::GradInputWords => {
                const {
                    &[
                        activation("grad_output"),
                        activation("x"),
                        reads("centering", 20),
                        reads("weight", 4),
                        writes("grad_input", 4),
                    ]
                }
            }
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
        matches!(self, Self::NormalizeWords | Self::GradInputWords)
    }

    /// The texts that make up the kernel, in order, but for what depends on storage types.
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::PartialStats => &[TILE, FINITE, REDUCE, include_str!("../shaders/partial_stats.wgsl")],
            Self::CombineStats => &[COMBINE, REDUCE, include_str!("../shaders/combine_stats.wgsl")],
            Self::Normalize => &[TILE, FINITE, CENTERING, NORMALIZED, include_str!("../shaders/normalize.wgsl")],
            Self::NormalizeWords => {
                &[TILE, FINITE, CENTERING, NORMALIZED, WORDS, include_str!("../shaders/normalize_words.wgsl")]
            }
            Self::PartialGradSums => {
                &[TILE, FINITE, REDUCE, CENTERING, include_str!("../shaders/partial_grad_sums.wgsl")]
            }
            Self::CombineGradSums => &[COMBINE, REDUCE, include_str!("../shaders/combine_grad_sums.wgsl")],
            Self::GradInput => &[TILE, FINITE, GRADIENT, include_str!("../shaders/grad_input.wgsl")],
            Self::GradInputWords => &[TILE, FINITE, GRADIENT, WORDS, include_str!("../shaders/grad_input_words.wgsl")],
        }
    }
}
