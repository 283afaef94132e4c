//! The kernels: what each depends on, its WGSL source, its parameter struct and its binding table.
//!
//! Knows no plan and no device: the plan picks kernels, `gpu` compiles what [`Variant::source`]
//! returns. A kernel's file in `shaders` names what it imports from `shaders/parts`, and what it
//! leaves out under which condition. A test reflects every variant and compares it with the tables
//! here.

mod bindings;
mod files;
mod kernel;
mod params;
mod preprocess;
mod storage;
mod variant;

pub use bindings::{Access, Binding, Role};
pub use kernel::{
    Active, DoubleGradient, Elements, GradInput, Kernel, MaskOrder, Normalize, RankSums,
    RunningForm, Upstream,
};
pub use params::{
    AccumulateParams, CombineParams, CotangentParams, FinalizeDoubleParams, FinalizeGradParams,
    FinalizeParams, GradIntegersParams, IntegersParams, ParamsLayout, TileParams,
};
pub use storage::Storage;
pub use variant::{Dialect, Variant};

/// A WGSL source with its directives carried out, for tests of the files in `shaders/parts` by
/// themselves: `flags` that are set, and `words` with what they are replaced by.
pub fn expand(source: &str, flags: &[&str], words: &[(&str, &str)]) -> String {
    preprocess::Definitions {
        flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        words: words
            .iter()
            .map(|&(word, replacement)| (word.to_owned(), replacement.to_owned()))
            .collect(),
        params: String::new(),
    }
    .expand(source)
}

/// Lengths that a kernel binds at once: an array of 1024 vectors, the smallest uniform buffer that
/// a device may bind at most.
pub const LENGTHS: u64 = 4096;

/// Invocations of every workgroup: the portable maximum.
pub const WORKGROUP_SIZE: u32 = 256;
/// Values of a tile that one invocation of a kernel that sums goes through at most.
pub const SUMMED_PER_LANE: u32 = 16;
/// Values of a tile that one invocation of a kernel that writes goes through at most: a word of a
/// mask.
pub const WRITTEN_PER_LANE: u32 = 32;
/// Quads that one invocation of a kernel that writes in the order of addresses has.
pub const FLAT_QUADS_PER_INVOCATION: u32 = 4;
/// Words of 16-bit outputs that one invocation writes.
pub const WORDS_PER_INVOCATION: u32 = 8;
/// The same where a mask is kept: those of one of its words.
pub const WORDS_PER_MASK_WORD: u32 = 16;
/// Values of a workgroup that writes quads in the order of addresses. In a mask by address their
/// bits lie in one group of words.
pub const FLAT_GROUP: u64 = 4 * (FLAT_QUADS_PER_INVOCATION * WORKGROUP_SIZE) as u64;
