//! SPIR-V, for three versions of Vulkan.

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

use super::{Module, Target, TranslateError};
use crate::variants::Shader;

/// A version of Vulkan, which decides on that of SPIR-V.
#[derive(Clone, Copy, PartialEq)]
pub enum Spirv {
    /// SPIR-V 1.3, on a device without robust buffers and without zeroing of workgroup memory.
    Vulkan11,
    /// SPIR-V 1.5, on a device with robust buffers.
    Vulkan12,
    /// SPIR-V 1.6, on a device with all of it.
    Vulkan13,
}

impl Spirv {
    fn options(self, shader: &Shader) -> spv::Options<'static> {
        let version = match self {
            Self::Vulkan11 => (1, 3),
            Self::Vulkan12 => (1, 5),
            Self::Vulkan13 => (1, 6),
        };
        let robust = match self {
            Self::Vulkan11 => BoundsCheckPolicy::Restrict,
            Self::Vulkan12 | Self::Vulkan13 => BoundsCheckPolicy::Unchecked,
        };
        // Asked not to zero workgroup memory, wgpu-hal obeys only where a driver must be given each
        // entry point by itself.
        let zeroed = match self {
            Self::Vulkan11 | Self::Vulkan12 => spv::ZeroInitializeWorkgroupMemoryMode::Polyfill,
            Self::Vulkan13 => spv::ZeroInitializeWorkgroupMemoryMode::Native,
        };
        spv::Options {
            lang_version: version,
            flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
            capabilities: Some(capabilities(shader).into_iter().collect()),
            bounds_check_policies: BoundsCheckPolicies {
                index: BoundsCheckPolicy::Restrict,
                buffer: robust,
                image_load: robust,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: zeroed,
            force_loop_bounding: true,
            emit_int_div_checks: true,
            fake_missing_bindings: false,
            binding_map: bindings(shader),
            ..spv::Options::default()
        }
    }
}

/// Capabilities that wgpu-hal allows a shader, on a device with its features.
fn capabilities(shader: &Shader) -> Vec<spv::Capability> {
    let mut capabilities = vec![
        spv::Capability::Shader,
        spv::Capability::Matrix,
        spv::Capability::Sampled1D,
        spv::Capability::Image1D,
        spv::Capability::ImageQuery,
        spv::Capability::DerivativeControl,
        spv::Capability::StorageImageExtendedFormats,
    ];
    if shader.subgroups {
        capabilities.extend([
            spv::Capability::GroupNonUniform,
            spv::Capability::GroupNonUniformVote,
            spv::Capability::GroupNonUniformArithmetic,
            spv::Capability::GroupNonUniformBallot,
            spv::Capability::GroupNonUniformShuffle,
            spv::Capability::GroupNonUniformShuffleRelative,
            spv::Capability::GroupNonUniformQuad,
        ]);
    }
    capabilities
}

/// Descriptor set 0, with the bindings of the layout.
fn bindings(shader: &Shader) -> spv::BindingMap {
    let all = (0..).take(1 + shader.buffers.len() + usize::from(shader.lengths_bytes > 0));
    let same = |binding| spv::BindingInfo { descriptor_set: 0, binding, binding_array_size: None };
    all.map(|binding| (naga::ResourceBinding { group: 0, binding }, same(binding))).collect()
}

impl Target for Spirv {
    fn name(&self) -> &'static str {
        match self {
            Self::Vulkan11 => "spirv-1.3",
            Self::Vulkan12 => "spirv-1.5",
            Self::Vulkan13 => "spirv-1.6",
        }
    }

    fn ending(&self) -> &'static str {
        ".spv"
    }

    fn takes(&self, _: &Shader) -> bool {
        true
    }

    fn write(&self, module: &Module<'_>) -> Result<Vec<u8>, TranslateError> {
        let options = self.options(module.shader);
        let words = spv::write_vec(&module.ir, &module.info, &options, None)
            .map_err(TranslateError::writer)?;
        Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
    }
}
