//! The judged shaders: every shader variant of `syncbn` and every question of its probe, with the
//! data for a pipeline layout.
//!
//! The only file that knows `syncbn::low_level::shaders` and `syncbn::low_level::probe`.

use serde::{Deserialize, Serialize};
use syncbn::DType;
use syncbn::low_level::plan::LENGTHS_BYTES;
use syncbn::low_level::probe::{INPUTS, Params, Question};
pub use syncbn::low_level::shaders::WORKGROUP_SIZE;
use syncbn::low_level::shaders::{
    Access, Dialect, Elements, GradInput, Kernel, Normalize, Storage, Upstream, Variant,
};

/// A shader and the layout that it is compiled with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shader {
    /// Number and kernel: the name of its files.
    pub name: String,
    /// The kernel.
    pub kernel: String,
    /// The variant of the kernel, in words.
    pub variant: String,
    /// Elements that an invocation reads and writes at once.
    pub form: String,
    /// How all that it reads and writes is stored, if it is a kernel of a layer without an epilogue
    /// whose activations are of one type.
    pub storage: Option<String>,
    /// Whether it needs subgroups.
    pub subgroups: bool,
    /// Bytes of the uniform buffer at binding 0.
    pub params_bytes: u32,
    /// The storage buffers, at the bindings from 1 on, in order.
    pub buffers: Vec<Buffer>,
    /// Bytes of the uniform buffer with the lengths of padded samples, at the binding behind them;
    /// 0 where there is none.
    pub lengths_bytes: u32,
    /// The WGSL source.
    #[serde(skip)]
    pub source: String,
    /// The WGSL source for GLSL below 4.50.
    #[serde(skip)]
    pub source_for_glsl_430: String,
}

/// A storage buffer of a shader's layout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// Name in the shader.
    pub name: String,
    /// Whether it is bound for reading alone.
    pub read_only: bool,
    /// Bytes of one element. 0 if unknown, or if the source leaves the binding out.
    pub bytes: u32,
}

impl Shader {
    /// Every variant and every question.
    pub fn all() -> Vec<Self> {
        let variants = Variant::all();
        let numbered =
            variants.iter().enumerate().map(|(number, variant)| Self::of(number, variant));
        numbered.chain(Question::ALL.map(Self::of_question)).collect()
    }

    /// The kernel of a question: one layout for all, of which each leaves something out.
    fn of_question(question: Question) -> Self {
        let buffer = |name: String, read_only| Buffer { name, read_only, bytes: 0 };
        let inputs = (1..=INPUTS).map(|number| buffer(format!("input {number}"), true));
        let source = question.source();
        Self {
            name: format!("probe-{}", question.name()),
            kernel: format!("probe_{}", question.name()),
            variant: format!("{question:?}"),
            form: "single values".to_owned(),
            storage: None,
            subgroups: question == Question::Subgroups,
            params_bytes: size_of::<Params>() as u32,
            lengths_bytes: 0,
            buffers: inputs.chain([buffer("answer".to_owned(), false)]).collect(),
            source_for_glsl_430: source.clone(),
            source,
        }
    }

    fn of(number: usize, variant: &Variant) -> Self {
        let kernel = variant.kernel.name();
        let form = match variant.kernel.elements() {
            Elements::Single => "single values",
            Elements::Quads => "quads",
            Elements::Covering => "covering quads",
            Elements::FourChannels => "four channels",
            Elements::Flat { straddles: false } => "flat quads",
            Elements::Flat { straddles: true } => "straddling quads",
        };
        let mut buffers = Vec::new();
        for binding in variant.bindings() {
            buffers.push(Buffer {
                name: binding.name.to_owned(),
                read_only: binding.access == Access::Read && !variant.shared_buffer,
                bytes: if variant.declares(binding) { variant.element_bytes(binding) } else { 0 },
            });
        }
        Self {
            name: format!("{number:04}-{kernel}"),
            kernel: kernel.to_owned(),
            variant: format!("{variant:?}"),
            form: form.to_owned(),
            storage: plain_storage(variant).map(|storage| format!("{storage:?}")),
            subgroups: variant.needs_subgroups(),
            params_bytes: variant.kernel.params_layout().size_bytes,
            buffers,
            lengths_bytes: variant.lengths_binding().map_or(0, |_| LENGTHS_BYTES as u32),
            source: variant.source(),
            source_for_glsl_430: variant.source_in(Dialect::Glsl430),
        }
    }
}

/// How the activations of a variant are stored, if all are stored alike, lie in buffers of their
/// own, and nothing is fused with it.
fn plain_storage(variant: &Variant) -> Option<Storage> {
    let of_upstream = |upstream: Upstream| {
        let Upstream { x, elements, .. } = upstream;
        let plain = Upstream { x, grad_output: x, elements, ..Upstream::default() };
        (upstream == plain).then_some(x)
    };
    let storage = match variant.kernel {
        Kernel::PartialStats { x, finishes: None, .. } => x,
        Kernel::PartialGradSums { upstream, finishes: None, .. } => of_upstream(upstream)?,
        Kernel::Normalize(normalize) => {
            let Normalize { x, elements, .. } = normalize;
            let y = match x {
                Storage::F32 => DType::F32,
                Storage::F16 | Storage::NativeF16 => DType::F16,
                Storage::BF16 => DType::BF16,
            };
            let plain = Normalize { x, y, elements, ..Normalize::default() };
            (normalize == plain).then_some(x)?
        }
        Kernel::GradInput(grad_input) => {
            let upstream = grad_input.upstream;
            let plain = GradInput { upstream, batch_statistics: true, ..GradInput::default() };
            (grad_input == plain).then(|| of_upstream(upstream))??
        }
        _ => return None,
    };
    (!variant.shared_buffer).then_some(storage)
}
