//! Kernels of a few lines, run over an array of words.

use wgpu::BufferUsages;

use super::common::adapter;
pub use super::common::kernel::Gpu;
use syncbn::low_level::shaders::expand;

/// Invocations of a workgroup.
const WORKGROUP: u32 = 256;

/// Whether a kernel takes values one by one or by fours.
#[derive(Clone, Copy, Debug)]
pub enum By {
    Ones,
    Fours,
}

impl By {
    pub const ALL: [Self; 2] = [Self::Ones, Self::Fours];

    /// A file of the shaders' parts, for an operand `x` where it has one.
    pub fn part(self, import: &str, flags: &[&str]) -> String {
        let quads: &[&str] = match self {
            Self::Ones => &["x_SINGLE"],
            Self::Fours => &["QUADS", "x_BY_QUADS"],
        };
        let element = match self {
            Self::Ones => "u32",
            Self::Fours => "vec2<u32>",
        };
        let flags = [flags, quads, &["x_DECLARED"]].concat();
        let words = [("x_BUFFER", "x"), ("x_BINDING", "0"), ("x_ELEMENT", element)];
        expand(&format!("#import {import}\n"), &flags, &words)
    }

    /// Writes one word of results per value: `result` is an expression of `i`, the number of an
    /// element, with what `source` declares. The number of results is a multiple of four.
    fn kernel(self, source: &str, result: &str) -> String {
        let (values, store) = match self {
            Self::Ones => (1, "results[i] = result;"),
            Self::Fours => {
                (4, "for (var j = 0u; j < 4u; j++) { results[4u * i + j] = result[j]; }")
            }
        };
        format!(
            "{source}
@group(0) @binding(1) var<storage, read_write> results: array<u32>;

@compute @workgroup_size({WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let i = id.x;
    if (i < arrayLength(&results) / {values}u) {{
        var result = {result};
        {store}
    }}
}}
"
        )
    }

    /// The element `words[i]`.
    fn words(self, source: &str) -> String {
        let element = match self {
            Self::Ones => "u32",
            Self::Fours => "vec4<u32>",
        };
        format!("{source}\n@group(0) @binding(0) var<storage, read> words: array<{element}>;\n")
    }

    /// Encodes every word as an f32.
    pub fn encoding_kernel(self, encode: &str) -> String {
        self.kernel(&self.words(encode), "encode(words[i])")
    }

    /// Stores every word as an f32 in 16 bits, by fours; gives back the halves.
    pub fn storing_kernel(store: &str) -> String {
        let source = format!(
            "{store}
struct Params {{ channels: u32 }}
var<private> params: Params;

fn halves(words: vec2<u32>) -> vec4<u32> {{
    return vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
}}
"
        );
        Self::Fours.kernel(&Self::Fours.words(&source), "halves(stored(words[i]))")
    }

    /// Decodes every word as an f16.
    pub fn decoding_kernel(self, decode: &str) -> String {
        self.kernel(&self.words(decode), "bitcast<U>(decode_f16(words[i]))")
    }

    /// Loads every element as f32.
    pub fn loading_kernel(self, load: &str) -> String {
        self.kernel(load, "bitcast<U>(load_x(i))")
    }
}

/// A device of the tests' adapter.
pub fn open() -> Gpu {
    Gpu::open(&adapter(), wgpu::Features::empty())
}

/// So many results of a kernel over these words.
pub fn run(gpu: &Gpu, source: &str, words: &[u32], results: usize) -> Vec<u32> {
    let input = gpu.buffer(bytemuck::cast_slice(words), BufferUsages::STORAGE);
    let output = gpu.buffer(&vec![0; 4 * results], BufferUsages::STORAGE | BufferUsages::COPY_SRC);
    let workgroups = [(results as u32).div_ceil(WORKGROUP), 1];
    gpu.run(&gpu.pipeline(source), [&input, &output], workgroups);
    gpu.words(&output)
}
