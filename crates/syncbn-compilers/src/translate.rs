//! Every source that naga makes of a shader, with the options of wgpu-hal 30 for a pipeline of
//! `syncbn`. All run-time checks are on. Workgroup memory is not zeroed, if there is an option for
//! that. Buffers have the numbers of wgpu-hal's backends.

mod glsl;
mod hlsl;
mod msl;
mod spirv;

use naga::valid::{
    Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
};

use crate::variants::Shader;

pub use glsl::Glsl;
pub use hlsl::Hlsl;
pub use msl::Msl;
pub use spirv::Spirv;

/// Why a source was not written.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// naga's reader or validator refuses the WGSL.
    #[error("{0}")]
    Wgsl(String),
    /// A writer refuses the module.
    #[error("{0}")]
    Writer(String),
}

impl TranslateError {
    fn writer(error: impl std::fmt::Display) -> Self {
        Self::Writer(error.to_string())
    }
}

/// A shader that naga has read.
pub struct Module<'a> {
    /// The shader that it was read from.
    pub shader: &'a Shader,
    /// naga's representation.
    pub ir: naga::Module,
    /// The result of its validator.
    pub info: ModuleInfo,
}

/// A language, with a version, that naga writes.
pub trait Target: Sync {
    /// Language and version: the name of its folder.
    fn name(&self) -> &'static str;
    /// The ending of its files, with a dot.
    fn ending(&self) -> &'static str;
    /// Whether a device that takes this language can have what the shader needs.
    fn takes(&self, shader: &Shader) -> bool;
    /// The WGSL that it is made of.
    fn source<'a>(&self, shader: &'a Shader) -> &'a str {
        &shader.source
    }
    /// The judge of every file: spirv-val or glslang.
    fn judge(&self) -> Option<String> {
        let tool = match self.ending() {
            ".spv" => "spirv-val",
            ".comp" => "glslang",
            _ => return None,
        };
        Some(format!("{tool}.{}", self.name()))
    }
    /// The bytes of the file.
    ///
    /// # Errors
    ///
    /// naga's writer refuses the module.
    fn write(&self, module: &Module<'_>) -> Result<Vec<u8>, TranslateError>;
}

/// Every language and version.
pub const TARGETS: &[&dyn Target] = &[
    &Spirv::Vulkan11,
    &Spirv::Vulkan12,
    &Spirv::Vulkan13,
    &Hlsl::V5_1,
    &Hlsl::V6_0,
    &Hlsl::V6_6,
    &Msl::V2_4,
    &Msl::V3_2,
    &Glsl::Es310,
    &Glsl::Core430,
    &Glsl::Core450,
];

/// The name of every entry point.
pub const ENTRY: &str = "main";

impl<'a> Module<'a> {
    /// Reads and validates one of a shader's sources.
    ///
    /// # Errors
    ///
    /// naga refuses the source.
    pub fn read(shader: &'a Shader, source: &str) -> Result<Self, TranslateError> {
        let ir = naga::front::wgsl::parse_str(source)
            .map_err(|error| TranslateError::Wgsl(error.emit_to_string(source)))?;
        // Conversions of f16 in words, which wgpu offers on all but few devices.
        let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        capabilities.set(Capabilities::SUBGROUP, shader.subgroups);
        let mut validator = Validator::new(ValidationFlags::all(), capabilities);
        if shader.subgroups {
            // A capability alone names neither where subgroups are nor what they can do.
            validator
                .subgroup_stages(ShaderStages::COMPUTE)
                .subgroup_operations(SubgroupOperationSet::all());
        }
        let info = validator
            .validate(&ir)
            .map_err(|error| TranslateError::Wgsl(error.emit_to_string(source)))?;
        Ok(Self { shader, ir, info })
    }

    /// The storage buffers of the layout with their bindings.
    fn buffers(&self) -> impl Iterator<Item = (naga::ResourceBinding, bool)> {
        let buffers = self.shader.buffers.iter().zip(1..);
        buffers.map(|(buffer, binding)| {
            (naga::ResourceBinding { group: 0, binding }, buffer.read_only)
        })
    }
}

impl Module<'_> {
    /// The binding of the lengths of padded samples, where there is one.
    fn lengths(&self) -> Option<naga::ResourceBinding> {
        let binding = 1 + self.shader.buffers.len() as u32;
        (self.shader.lengths_bytes > 0).then_some(naga::ResourceBinding { group: 0, binding })
    }
}

/// The binding of the parameters.
const PARAMS: naga::ResourceBinding = naga::ResourceBinding { group: 0, binding: 0 };
