//! The Metal shading language.

use naga::back::msl;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

use super::{ENTRY, Module, PARAMS, Target, TranslateError};
use crate::variants::Shader;

/// A version of the language.
#[derive(Clone, Copy, PartialEq)]
pub enum Msl {
    /// Of macOS 12.
    V2_4,
    /// Of macOS 15.
    V3_2,
}

impl Msl {
    fn version(self) -> (u8, u8) {
        match self {
            Self::V2_4 => (2, 4),
            Self::V3_2 => (3, 2),
        }
    }
}

/// Slots in the order of the layout; behind them that of the buffers' lengths.
fn resources(module: &Module<'_>) -> msl::EntryPointResources {
    let all = std::iter::once((PARAMS, true)).chain(module.buffers());
    let all = all.chain(module.lengths().map(|binding| (binding, true)));
    let mut resources = msl::BindingMap::default();
    let mut slot = 0;
    for (binding, read_only) in all {
        let target =
            msl::BindTarget { buffer: Some(slot), mutable: !read_only, ..Default::default() };
        resources.insert(binding, target);
        slot += 1;
    }
    msl::EntryPointResources { resources, immediates_buffer: None, sizes_buffer: Some(slot) }
}

impl Target for Msl {
    fn name(&self) -> &'static str {
        match self {
            Self::V2_4 => "msl-2.4",
            Self::V3_2 => "msl-3.2",
        }
    }

    fn ending(&self) -> &'static str {
        ".metal"
    }

    fn takes(&self, _: &Shader) -> bool {
        true
    }

    fn write(&self, module: &Module<'_>) -> Result<Vec<u8>, TranslateError> {
        let options = msl::Options {
            lang_version: self.version(),
            per_entry_point_map: [(ENTRY.to_owned(), resources(module))].into_iter().collect(),
            spirv_cross_compatibility: false,
            fake_missing_bindings: false,
            bounds_check_policies: BoundsCheckPolicies {
                index: BoundsCheckPolicy::Restrict,
                buffer: BoundsCheckPolicy::Restrict,
                image_load: BoundsCheckPolicy::Restrict,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: true,
            emit_int_div_checks: true,
            ..msl::Options::default()
        };
        let pipeline = msl::PipelineOptions {
            entry_point: Some((naga::ShaderStage::Compute, ENTRY.to_owned())),
            vertex_pulling_transform: true,
            ..msl::PipelineOptions::default()
        };
        let (source, found) = msl::write_string(&module.ir, &module.info, &options, &pipeline)
            .map_err(TranslateError::writer)?;
        // Which is renamed: `main` is a name that the language reserves.
        match found.entry_point_names.first() {
            Some(Ok(_)) => Ok(source.into_bytes()),
            other => {
                Err(TranslateError::writer(format!("the entry point was written as {other:?}")))
            }
        }
    }
}
