//! What is judged: every shader variant of `syncbn`, with what a pipeline layout has to know of it.
//!
//! The only file that knows `syncbn::shaders`.

use serde::{Deserialize, Serialize};
pub use syncbn::shaders::WORKGROUP_SIZE;
use syncbn::shaders::{Access, Dialect, Elements, Variant};

/// A shader and the layout that it is compiled with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shader {
    /// Number and kernel: the name of its files.
    pub name: String,
    /// The kernel.
    pub kernel: String,
    /// Which variant of the kernel, in words.
    pub variant: String,
    /// What an invocation reads and writes at once.
    pub form: String,
    /// Whether it needs the device's own f16.
    pub f16: bool,
    /// Whether it needs subgroups.
    pub subgroups: bool,
    /// Bytes of the uniform buffer at binding 0.
    pub params_bytes: u32,
    /// The storage buffers, at the bindings from 1 on, in order.
    pub buffers: Vec<Buffer>,
    /// The WGSL text.
    #[serde(skip)]
    pub source: String,
    /// The WGSL text for GLSL below 4.50.
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
    /// Bytes of one element; 0 where the text leaves the binding out.
    pub bytes: u32,
}

impl Shader {
    /// Every variant.
    pub fn all() -> Vec<Self> {
        Variant::all().iter().enumerate().map(|(number, variant)| Self::of(number, variant)).collect()
    }

    fn of(number: usize, variant: &Variant) -> Self {
        let kernel = variant.kernel.name();
        let form = match variant.kernel.elements() {
            Elements::Single => "single values",
            Elements::Quads => "quads",
            Elements::FourChannels => "four channels",
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
            f16: variant.needs_native_f16(),
            subgroups: variant.needs_subgroups(),
            params_bytes: variant.kernel.params_layout().size_bytes,
            buffers,
            source: variant.source(),
            source_for_glsl_430: variant.source_in(Dialect::Glsl430),
        }
    }
}
