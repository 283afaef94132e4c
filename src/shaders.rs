//! WGSL text of every kernel variant, with the parameter struct and the binding table of each kernel.
//!
//! Knows no plan and no device: the plan picks kernels, `gpu` compiles what [`Variant::source`] returns. A test reflects
//! every variant and compares it with the tables here.

mod params;

pub use params::{CombineParams, ParamsLayout, TileParams};

/// Invocations of every workgroup: the portable maximum.
pub const WORKGROUP_SIZE: u32 = 256;
/// Values that one invocation of a tile kernel holds in registers.
pub const VALUES_PER_ROW: u32 = 16;

/// A compute kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Partial statistics of every tile.
    PartialStats,
    /// Local statistics of the rank from those of its tiles.
    CombineStats,
    /// The normalized output.
    Normalize,
    /// Partial gradient sums of every tile.
    PartialGradSums,
    /// Local gradient sums of the rank from those of its tiles.
    CombineGradSums,
    /// The gradient of the input.
    GradInput,
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
    /// Bytes of one array element.
    pub element_bytes: u32,
}

const fn reads(name: &'static str, element_bytes: u32) -> Binding {
    Binding { name, access: Access::Read, element_bytes }
}

const fn writes(name: &'static str, element_bytes: u32) -> Binding {
    Binding { name, access: Access::Write, element_bytes }
}

const TILE: &str = include_str!("../shaders/parts/tile.wgsl");
const REDUCE: &str = include_str!("../shaders/parts/reduce.wgsl");
const COMBINE: &str = include_str!("../shaders/parts/combine.wgsl");
const CENTERING: &str = include_str!("../shaders/parts/centering.wgsl");
const FINITE: &str = include_str!("../shaders/parts/finite.wgsl");

impl Kernel {
    /// Every kernel.
    pub const ALL: &'static [Self] = &[
        Self::PartialStats,
        Self::CombineStats,
        Self::Normalize,
        Self::PartialGradSums,
        Self::CombineGradSums,
        Self::GradInput,
    ];

    /// Name of the kernel and of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::PartialStats => "partial_stats",
            Self::CombineStats => "combine_stats",
            Self::Normalize => "normalize",
            Self::PartialGradSums => "partial_grad_sums",
            Self::CombineGradSums => "combine_grad_sums",
            Self::GradInput => "grad_input",
        }
    }

    /// The storage buffers in binding order.
    pub fn bindings(self) -> &'static [Binding] {
        match self {
            Self::PartialStats => const { &[reads("x", 4), writes("partial", 16)] },
            Self::CombineStats | Self::CombineGradSums => const { &[reads("partial", 16), writes("local", 16)] },
            Self::PartialGradSums => {
                const { &[reads("grad_output", 4), reads("x", 4), reads("centering", 12), writes("partial", 16)] }
            }
            Self::GradInput => {
                const {
                    &[
                        reads("grad_output", 4),
                        reads("x", 4),
                        reads("centering", 20),
                        reads("weight", 4),
                        writes("grad_input", 4),
                    ]
                }
            }
            Self::Normalize => {
                const { &[reads("x", 4), reads("centering", 12), reads("weight", 4), reads("bias", 4), writes("y", 4)] }
            }
        }
    }

    /// Layout of the parameter struct at binding 0.
    pub fn params_layout(self) -> ParamsLayout {
        match self {
            Self::CombineStats | Self::CombineGradSums => CombineParams::LAYOUT,
            Self::PartialStats | Self::Normalize | Self::PartialGradSums | Self::GradInput => TileParams::LAYOUT,
        }
    }

    /// The texts that make up the kernel, in order.
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::PartialStats => &[TILE, FINITE, REDUCE, include_str!("../shaders/partial_stats.wgsl")],
            Self::CombineStats => &[COMBINE, REDUCE, include_str!("../shaders/combine_stats.wgsl")],
            Self::Normalize => &[TILE, FINITE, CENTERING, include_str!("../shaders/normalize.wgsl")],
            Self::PartialGradSums => {
                &[TILE, FINITE, REDUCE, CENTERING, include_str!("../shaders/partial_grad_sums.wgsl")]
            }
            Self::CombineGradSums => &[COMBINE, REDUCE, include_str!("../shaders/combine_grad_sums.wgsl")],
            Self::GradInput => &[TILE, FINITE, include_str!("../shaders/grad_input.wgsl")],
        }
    }
}

/// A kernel together with what of its text changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The kernel.
    pub kernel: Kernel,
    /// Whether every storage buffer is bound `read_write`: needed where inputs and outputs are slices of one
    /// `wgpu::Buffer`, which may not be bound for reading and for writing in one dispatch.
    pub shared_buffer: bool,
}

impl Variant {
    /// Every variant of every kernel.
    pub fn all() -> Vec<Self> {
        let variants = |&kernel| [false, true].map(|shared_buffer| Self { kernel, shared_buffer });
        Kernel::ALL.iter().flat_map(variants).collect()
    }

    /// The WGSL text; the entry point is `main`, of [`WORKGROUP_SIZE`] invocations.
    pub fn source(&self) -> String {
        let text = self.kernel.parts().join("\n");
        if self.shared_buffer { text.replace("<storage, read>", "<storage, read_write>") } else { text }
    }
}
