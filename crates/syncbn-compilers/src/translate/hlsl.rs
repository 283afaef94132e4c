//! HLSL, for the compilers of Direct3D 12.

use naga::back::hlsl;

use super::{ENTRY, Module, PARAMS, Target, TranslateError};
use crate::variants::Shader;

/// A shader model: 5.1 is compiled by FXC, the others by DXC.
#[derive(Clone, Copy, PartialEq)]
pub enum Hlsl {
    /// The model of every device.
    V5_1,
    /// The first with subgroups.
    V6_0,
    /// The model of a device of today, with f16, which kernels do not need.
    V6_6,
}

impl Hlsl {
    fn model(self) -> hlsl::ShaderModel {
        match self {
            Self::V5_1 => hlsl::ShaderModel::V5_1,
            Self::V6_0 => hlsl::ShaderModel::V6_0,
            Self::V6_6 => hlsl::ShaderModel::V6_6,
        }
    }

    /// The compiler's name of the model for a compute shader.
    pub fn profile(self) -> String {
        format!("cs_{}", self.model().to_str())
    }

    /// Whether the device has the feature `SHADER_F16`, for which wgpu-hal passes DXC a flag,
    /// whatever the shader.
    pub fn has_16_bits(self) -> bool {
        self == Self::V6_6
    }
}

/// Registers by class and in the order of the layout, as wgpu-hal hands them out; behind those of
/// the buffers that of the number of workgroups.
fn options(model: hlsl::ShaderModel, module: &Module<'_>) -> hlsl::Options {
    let [mut constants, mut read, mut written] = [hlsl::BindTarget::default(); 3];
    let take = |next: &mut hlsl::BindTarget| {
        let taken = *next;
        next.register += 1;
        taken
    };
    let mut binding_map = hlsl::BindingMap::default();
    binding_map.insert(PARAMS, take(&mut constants));
    for (binding, read_only) in module.buffers() {
        binding_map.insert(binding, take(if read_only { &mut read } else { &mut written }));
    }
    if let Some(lengths) = module.lengths() {
        binding_map.insert(lengths, take(&mut constants));
    }
    hlsl::Options {
        shader_model: model,
        binding_map,
        fake_missing_bindings: false,
        special_constants_binding: Some(take(&mut constants)),
        zero_initialize_workgroup_memory: false,
        restrict_indexing: true,
        force_loop_bounding: true,
        ..hlsl::Options::default()
    }
}

impl Target for Hlsl {
    fn name(&self) -> &'static str {
        match self {
            Self::V5_1 => "hlsl-5.1",
            Self::V6_0 => "hlsl-6.0",
            Self::V6_6 => "hlsl-6.6",
        }
    }

    fn ending(&self) -> &'static str {
        ".hlsl"
    }

    fn takes(&self, shader: &Shader) -> bool {
        match self {
            Self::V5_1 => !shader.subgroups,
            Self::V6_0 | Self::V6_6 => true,
        }
    }

    fn write(&self, module: &Module<'_>) -> Result<Vec<u8>, TranslateError> {
        let options = options(self.model(), module);
        let entry = hlsl::PipelineOptions {
            entry_point: Some((naga::ShaderStage::Compute, ENTRY.to_owned())),
        };
        let mut source = String::new();
        let mut writer = hlsl::Writer::new(&mut source, &options, &entry);
        let mut found =
            writer.write(&module.ir, &module.info, None).map_err(TranslateError::writer)?;
        match found.entry_point_names.pop() {
            Some(Ok(entry)) if entry == ENTRY => Ok(source.into_bytes()),
            other => {
                Err(TranslateError::writer(format!("the entry point was written as {other:?}")))
            }
        }
    }
}
