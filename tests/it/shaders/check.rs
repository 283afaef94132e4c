//! Reflection of a shader: its interface against the Rust side's tables, its resources against the
//! portable limits.

use naga::proc::GlobalCtx;
use naga::valid::{
    Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
};
use naga::{
    AddressSpace, ArraySize, Expression, Function, GlobalVariable, Handle, StorageAccess, TypeInner,
};
use syncbn::low_level::plan::LENGTHS_BYTES;
use syncbn::low_level::shaders::{Access, Binding, ParamsLayout, Variant, WORKGROUP_SIZE};

/// Storage buffers per stage that WebGPU guarantees.
const STORAGE_BUFFERS: usize = 8;
/// Invocations per workgroup that WebGPU guarantees.
const INVOCATIONS: u32 = 256;
/// Bytes of workgroup memory that WebGPU guarantees.
const WORKGROUP_BYTES: u32 = 16 * 1024;

/// A shader that parsed and validated.
pub struct Shader {
    pub source: String,
    pub module: naga::Module,
    pub info: ModuleInfo,
}

/// What the Rust side binds.
pub struct Interface {
    pub params: ParamsLayout,
    pub bindings: Vec<Binding>,
    /// The binding that the shader leaves out, because what is written lies over it.
    pub undeclared: Option<&'static str>,
    pub shared_buffer: bool,
    /// The number of the uniform buffer with the lengths of padded samples.
    pub lengths: Option<u32>,
}

impl Interface {
    pub fn of(variant: &Variant) -> Self {
        let kernel = variant.kernel;
        let resolved = |binding: &Binding| Binding {
            element_bytes: Some(variant.element_bytes(binding)),
            ..*binding
        };
        let params = kernel.params_layout();
        let bindings = variant.bindings().iter().map(resolved).collect();
        let undeclared = variant
            .bindings()
            .iter()
            .find(|binding| !variant.declares(binding))
            .map(|binding| binding.name);
        let lengths = variant.lengths_binding();
        Self { params, bindings, undeclared, shared_buffer: variant.shared_buffer, lengths }
    }

    pub fn is_read_only(&self, binding: &Binding) -> bool {
        binding.access == Access::Read && !self.shared_buffer
    }
}

impl Shader {
    /// No capability is granted: subgroups, f16, f64, immediates and the like do not validate.
    pub fn parse(source: &str) -> Result<Self, String> {
        Self::parse_with(source, Capabilities::empty())
    }

    pub fn parse_with(source: &str, capabilities: Capabilities) -> Result<Self, String> {
        let module =
            naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
        let mut validator = Validator::new(ValidationFlags::all(), capabilities);
        if capabilities.contains(Capabilities::SUBGROUP) {
            // A capability alone names neither where subgroups are nor what they can do.
            validator
                .subgroup_stages(ShaderStages::COMPUTE)
                .subgroup_operations(SubgroupOperationSet::all());
        }
        let info = validator.validate(&module).map_err(|error| error.emit_to_string(source))?;
        Ok(Self { source: source.to_string(), module, info })
    }

    pub fn globals(
        &self,
        is: impl Fn(AddressSpace) -> bool,
    ) -> Vec<(Handle<GlobalVariable>, &GlobalVariable)> {
        self.module.global_variables.iter().filter(|(_, global)| is(global.space)).collect()
    }

    /// Every function with its name, the entry points last.
    pub fn functions(&self) -> impl Iterator<Item = (&str, &Function)> {
        let helpers = self.module.functions.iter().map(|(_, function)| function);
        let entries =
            self.module.entry_points.iter().map(|entry| (entry.name.as_str(), &entry.function));
        helpers.map(|function| (function.name.as_deref().unwrap_or("?"), function)).chain(entries)
    }

    pub fn inner(&self, ty: Handle<naga::Type>) -> &TypeInner {
        &self.module.types[ty].inner
    }
}

pub fn is_storage(space: AddressSpace) -> bool {
    matches!(space, AddressSpace::Storage { .. })
}

fn differs<T: PartialEq + std::fmt::Debug>(what: &str, shader: T, rust: T) -> Option<String> {
    (shader != rust).then(|| format!("{what}: {shader:?} in the shader, {rust:?} in Rust"))
}

/// What differs between the shader's bindings and the Rust side's tables.
pub fn interface(shader: &Shader, expected: &Interface) -> Vec<String> {
    let mut found = Vec::new();
    let mut uniforms = shader.globals(|space| space == AddressSpace::Uniform);
    uniforms.sort_by_key(|(_, global)| global.binding.map(|b| (b.group, b.binding)));
    let lengths: Vec<_> = uniforms
        .iter()
        .skip(1)
        .map(|(_, global)| {
            let bytes = shader.inner(global.ty).size(shader.module.to_ctx());
            (global.binding.map(|b| (b.group, b.binding)), u64::from(bytes))
        })
        .collect();
    let expected_lengths: Vec<_> =
        expected.lengths.map(|number| (Some((0, number)), LENGTHS_BYTES)).into_iter().collect();
    found.extend(differs("lengths as (slot, bytes)", lengths, expected_lengths));
    let layout = uniforms.first().and_then(|(_, global)| {
        let TypeInner::Struct { members, span } = shader.inner(global.ty) else { return None };
        let binding = global.binding.map(|b| (b.group, b.binding));
        found.extend(differs("binding of the parameter struct", binding, Some((0, 0))));
        let fields =
            members.iter().map(|member| (member.name.clone().unwrap_or_default(), member.offset));
        Some((fields.collect::<Vec<_>>(), *span))
    });
    let fields =
        expected.params.fields.iter().map(|&(name, offset)| (name.to_string(), offset)).collect();
    found.extend(differs(
        "fields and size of the parameter struct",
        layout,
        Some((fields, expected.params.size_bytes)),
    ));

    let mut storage = shader.globals(is_storage);
    storage.sort_by_key(|(_, global)| global.binding.map(|b| (b.group, b.binding)));
    let reflected: Vec<_> =
        storage.iter().map(|(_, global)| storage_binding(shader, global)).collect();
    let tabled: Vec<_> = expected
        .bindings
        .iter()
        .zip(1..)
        .filter(|(binding, _)| Some(binding.name) != expected.undeclared)
        .map(|(binding, number)| {
            let slot = Some((0, number));
            (slot, binding.name.to_string(), expected.is_read_only(binding), binding.element_bytes)
        })
        .collect();
    found.extend(differs("storage buffers as (slot, name, read only, stride)", reflected, tabled));
    found
}

type StorageBinding = (Option<(u32, u32)>, String, bool, Option<u32>);

/// Slot, name, whether it is read only, and the stride of its run-time sized array, if it is one.
fn storage_binding(shader: &Shader, global: &GlobalVariable) -> StorageBinding {
    let stores = matches!(
        global.space,
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE)
    );
    let stride = match *shader.inner(global.ty) {
        TypeInner::Array { size: ArraySize::Dynamic, stride, .. } => Some(stride),
        _ => None,
    };
    (
        global.binding.map(|b| (b.group, b.binding)),
        global.name.clone().unwrap_or_default(),
        !stores,
        stride,
    )
}

/// What goes beyond the portable baseline.
pub fn limits(shader: &Shader) -> Vec<String> {
    let mut found = Vec::new();
    let mut at_most = |what: &str, size: u64, allowed: u64| {
        if size > allowed {
            found.push(format!("{size} {what}, allowed: {allowed}"));
        }
    };
    at_most("storage buffers", shader.globals(is_storage).len() as u64, STORAGE_BUFFERS as u64);
    at_most(
        "uniform buffers",
        shader.globals(|space| space == AddressSpace::Uniform).len() as u64,
        2,
    );
    at_most("bytes of workgroup memory", workgroup_bytes(shader), WORKGROUP_BYTES.into());
    for entry in &shader.module.entry_points {
        at_most(
            "invocations",
            entry.workgroup_size.iter().map(|&n| u64::from(n)).product(),
            INVOCATIONS.into(),
        );
    }
    found.extend(entry_points(shader));
    for (name, function) in shader.functions() {
        if function
            .expressions
            .iter()
            .any(|(_, expression)| matches!(expression, Expression::ArrayLength(_)))
        {
            found.push(format!(
                "arrayLength in `{name}`: bindings are padded, the count comes in the parameters"
            ));
        }
    }
    let spaces = |space| {
        let known = matches!(
            space,
            AddressSpace::Uniform | AddressSpace::WorkGroup | AddressSpace::Private
        );
        !known && !is_storage(space)
    };
    found.extend(
        shader.globals(spaces).iter().map(|(_, global)| format!("a global in {:?}", global.space)),
    );
    found
}

/// Bytes of the workgroup variables that the entry points use, directly or through a function.
fn workgroup_bytes(shader: &Shader) -> u64 {
    let context: GlobalCtx = shader.module.to_ctx();
    let is_used = |global: Handle<GlobalVariable>| {
        (0..shader.module.entry_points.len())
            .any(|i| !shader.info.get_entry_point(i)[global].is_empty())
    };
    let used = shader
        .globals(|space| space == AddressSpace::WorkGroup)
        .into_iter()
        .filter(|(handle, _)| is_used(*handle));
    used.map(|(_, global)| u64::from(shader.inner(global.ty).size(context))).sum()
}

fn entry_points(shader: &Shader) -> Vec<String> {
    let entries: Vec<_> = shader
        .module
        .entry_points
        .iter()
        .map(|e| (e.name.as_str(), e.stage, e.workgroup_size))
        .collect();
    let expected = vec![("main", naga::ShaderStage::Compute, [WORKGROUP_SIZE, 1, 1])];
    let mut found: Vec<String> = differs("entry points", entries, expected).into_iter().collect();
    // Behind an override the sizes reflected here would not be those that run.
    if !shader.module.overrides.is_empty() {
        found.push("an override: variants are chosen by source".to_string());
    }
    found
}
