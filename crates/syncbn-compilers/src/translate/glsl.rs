//! GLSL, for the OpenGL backend, which an application may add to wgpu. It has no subgroups.

use naga::back::glsl;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

use super::{ENTRY, Module, PARAMS, Target, TranslateError};
use crate::variants::Shader;

/// A version of the language.
#[derive(Clone, Copy, PartialEq)]
pub enum Glsl {
    /// OpenGL ES 3.1, the first with compute shaders.
    Es310,
    /// OpenGL 4.3, the first with compute shaders.
    Core430,
    /// The last that naga knows, for OpenGL 4.5 and 4.6.
    Core450,
}

impl Glsl {
    fn version(self) -> glsl::Version {
        match self {
            Self::Es310 => glsl::Version::Embedded { version: 310, is_webgl: false },
            Self::Core430 => glsl::Version::Desktop(430),
            Self::Core450 => glsl::Version::Desktop(450),
        }
    }
}

/// Slots by class, in the order of the layout.
fn bindings(module: &Module<'_>) -> glsl::BindingMap {
    let storage = module.buffers().zip(0..).map(|((binding, _), slot)| (binding, slot));
    let lengths = module.lengths().map(|binding| (binding, 1));
    std::iter::once((PARAMS, 0)).chain(storage).chain(lengths).collect()
}

impl Target for Glsl {
    fn name(&self) -> &'static str {
        match self {
            Self::Es310 => "glsl-es-310",
            Self::Core430 => "glsl-430",
            Self::Core450 => "glsl-450",
        }
    }

    fn ending(&self) -> &'static str {
        ".comp"
    }

    fn source<'a>(&self, shader: &'a Shader) -> &'a str {
        match self {
            Self::Core430 => &shader.source_for_glsl_430,
            Self::Es310 | Self::Core450 => &shader.source,
        }
    }

    fn takes(&self, shader: &Shader) -> bool {
        !shader.subgroups
    }

    fn write(&self, module: &Module<'_>) -> Result<Vec<u8>, TranslateError> {
        let options = glsl::Options {
            version: self.version(),
            writer_flags: glsl::WriterFlags::ADJUST_COORDINATE_SPACE
                | glsl::WriterFlags::FORCE_POINT_SIZE,
            binding_map: bindings(module),
            zero_initialize_workgroup_memory: false,
        };
        let pipeline = glsl::PipelineOptions {
            shader_stage: naga::ShaderStage::Compute,
            entry_point: ENTRY.to_owned(),
            multiview: None,
        };
        // OpenGL clamps or wgpu-hal does not check.
        let policies = BoundsCheckPolicies {
            index: BoundsCheckPolicy::Unchecked,
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: BoundsCheckPolicy::ReadZeroSkipWrite,
            binding_array: BoundsCheckPolicy::Unchecked,
        };
        let mut source = String::new();
        let mut writer =
            glsl::Writer::new(&mut source, &module.ir, &module.info, &options, &pipeline, policies)
                .map_err(TranslateError::writer)?;
        writer.write().map_err(TranslateError::writer)?;
        Ok(source.into_bytes())
    }
}
