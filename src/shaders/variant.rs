//! A kernel as it is compiled: its WGSL source, and the buffers that this declares.

mod all;

use std::collections::BTreeSet;

use super::bindings::{Access, Binding, Role};
use super::kernel::{Active, DoubleGradient, Elements, Finish, Kernel, MaskOrder, RunningForm};
use super::params::TileParams;
use super::preprocess::Definitions;
use super::storage::Storage;
use crate::dtype::DType;

/// A kernel together with how its buffers are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The kernel.
    pub kernel: Kernel,
    /// Whether every storage buffer is bound `read_write`: needed where inputs and outputs are
    /// slices of one `wgpu::Buffer`, which may not be bound for reading and for writing in one
    /// dispatch.
    pub shared_buffer: bool,
}

/// The language that a driver is given in the end, as far as the source depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Any that chooses between integers: all but GLSL below 4.50.
    #[default]
    Full,
    /// GLSL below 4.50.
    Glsl430,
}

impl Variant {
    /// The kernel with inputs and outputs in buffers of their own.
    pub fn new(kernel: Kernel) -> Self {
        Self { kernel, shared_buffer: false }
    }

    /// The storage buffers in binding order.
    pub fn bindings(&self) -> &'static [Binding] {
        self.kernel.bindings()
    }

    /// Whether the source declares a buffer: in place, the output stands
    /// for both.
    pub fn declares(&self, binding: &Binding) -> bool {
        self.kernel.in_place().is_none_or(|[source, _]| source != binding.name)
    }

    /// The number of the uniform buffer with the lengths of padded samples, behind the storage
    /// buffers; `None` for a kernel that walks no activation.
    pub fn lengths_binding(&self) -> Option<u32> {
        let walks = self.kernel.params_layout() == TileParams::LAYOUT;
        walks.then(|| self.bindings().len() as u32 + 1)
    }

    /// Whether it converts f16 by the device's own instructions: `unpack2x16float`, and where it
    /// writes f16 `pack2x16float`. wgpu offers them on all but few devices (`SHADER_F16_IN_F32`).
    pub fn converts_f16(&self) -> bool {
        [self.storage("x"), self.storage("grad_output")].contains(&Storage::NativeF16)
    }

    /// Whether it needs the device feature `SUBGROUP`.
    pub fn needs_subgroups(&self) -> bool {
        self.kernel.subgroups()
    }

    /// Bytes of one element of a storage buffer's array.
    pub fn element_bytes(&self, binding: &Binding) -> u32 {
        let is_single = self.kernel.elements() == Elements::Single;
        match (binding.element_bytes, binding.access) {
            (Some(_), _) if binding.name == "mask" => match self.kernel.mask_order() {
                Some(MaskOrder::ByInvocation) if !is_single => 8,
                _ => 4,
            },
            (Some(bytes), _) => bytes,
            // Single values of 16 bits are written in words.
            (None, Access::Write) if is_single => 4,
            (None, Access::Write) => {
                Storage::packed(self.kernel.output().unwrap_or_default()).quad_bytes()
            }
            (None, Access::Read) if self.by_quads(binding.name) => {
                self.storage(binding.name).quad_bytes()
            }
            // One value of f32, or a word.
            (None, Access::Read) => 4,
        }
    }

    /// The WGSL source; the entry point is `main`, of [`WORKGROUP_SIZE`](super::WORKGROUP_SIZE)
    /// invocations.
    pub fn source(&self) -> String {
        self.source_in(Dialect::Full)
    }

    /// The WGSL source for a driver's language.
    pub fn source_in(&self, dialect: Dialect) -> String {
        let (_, file) = self.kernel.file();
        let mut source = self.definitions(dialect).expand(file);
        if self.shared_buffer {
            source = source.replace("<storage, read>", "<storage, read_write>");
        }
        source
    }

    fn definitions(&self, dialect: Dialect) -> Definitions {
        let kernel = self.kernel;
        let mut flags = BTreeSet::new();
        let mut set = |flag: &str, is_set: bool| {
            if is_set {
                flags.insert(flag.to_owned());
            }
        };
        set("GLSL_430", dialect == Dialect::Glsl430);
        set("QUADS", kernel.elements() != Elements::Single);
        let covers = kernel.elements() == Elements::Covering;
        set("ONE_CHANNEL_QUADS", kernel.elements() == Elements::Quads || covers);
        set("COVERING", covers);
        set("TAILS", kernel.elements() == Elements::Quads);
        set("FOUR_CHANNELS", kernel.elements() == Elements::FourChannels);
        set("FLAT", kernel.is_flat());
        set("STRADDLES", kernel.elements() == Elements::Flat { straddles: true });
        set("SUBGROUPS", kernel.subgroups());
        set("OF_TILES", kernel.is_of_tiles());
        set("FINISHES", kernel.finishes());
        set("FUSED", kernel.is_fused());
        // A fused backward pass is planned only where the statistics depend on x.
        set("BATCH_STATISTICS", kernel.is_fused() && kernel.upstream().is_some());
        set("ONE_RANK", kernel.is_of_tiles() || kernel.finishes());
        let mask = |binding: &Binding| binding.role == Role::Mask;
        set("NO_BIAS", kernel.finishes() && self.bindings().iter().any(mask));
        set("RUNNING_VECTORS", kernel.running() == Some(RunningForm::Vectors));
        if let Some(output) = kernel.output() {
            set(&format!("OUTPUT_{}", Storage::packed(output).flag()), true);
            // A kernel that writes reads so only where the device also rounds to the nearest even.
            let converts = output == DType::F16 && self.storage("x") == Storage::NativeF16;
            set("OUTPUT_ROUNDED_BY_DEVICE", converts);
        }
        if let Kernel::PartialStats { finishes: Some(finish), .. } = kernel
            && let Finish::Output { activation, curved, .. } = finish
        {
            set("FUSED_FORWARD", true);
            set("ACTIVATION", activation);
            set("CURVED", curved);
        }
        if let Kernel::Normalize(normalize) = kernel {
            set("RESIDUAL", normalize.residual);
            set("ACTIVATION", normalize.activation);
            set("CURVED", normalize.curved);
            set("KEEPS_MASK", kernel.keeps_mask());
        }
        if let Some(upstream) = kernel.upstream() {
            set("ACTIVATION", upstream.active != Active::Everywhere);
            let recomputed = match upstream.active {
                Active::Recomputed { residual, curved } => [residual, curved],
                Active::Everywhere | Active::Masked(_) => [false; 2],
            };
            set("RESIDUAL", recomputed[0]);
            set("CURVED", recomputed[1]);
            set("MASK", matches!(upstream.active, Active::Masked(_)));
            set("MASK_BY_INVOCATION", upstream.active == Active::Masked(MaskOrder::ByInvocation));
        }
        if let Kernel::GradInput(gradient) = kernel {
            set("BATCH_STATISTICS", gradient.batch_statistics);
            set("GRAD_RESIDUAL", gradient.grad_residual);
            let recomputes = matches!(gradient.upstream.active, Active::Recomputed { .. });
            set("READS_X", gradient.batch_statistics || recomputes);
        }
        if let Kernel::DoubleInput { of, .. } = kernel {
            set("GRAD_GRAD_OUTPUT", of == DoubleGradient::GradOutput);
        }
        if let Kernel::PartialDoubleSums(_) = kernel {
            set("BATCH_STATISTICS", true);
            set("READS_X", true);
        }
        let mut words = Vec::new();
        for (binding, number) in self.bindings().iter().zip(1..) {
            if binding.element_bytes.is_some() || binding.access == Access::Write {
                continue;
            }
            let name = binding.name;
            let storage = self.storage(name);
            set(&format!("{name}_{}", storage.flag()), true);
            set(&format!("{name}_PACKED"), storage.is_packed());
            set(&format!("{name}_DECLARED"), self.declares(binding));
            set(&format!("{name}_BY_QUADS"), self.by_quads(name));
            set(&format!("{name}_SINGLE"), kernel.elements() == Elements::Single);
            set(
                &format!("{name}_STRIDED"),
                kernel.elements() != Elements::Single && !self.by_quads(name),
            );
            let buffer = kernel
                .in_place()
                .filter(|[source, _]| *source == name)
                .map_or(name, |[_, target]| target);
            words.push((format!("{name}_BUFFER"), buffer.to_owned()));
            words.push((format!("{name}_BINDING"), number.to_string()));
            words.push((format!("{name}_ELEMENT"), storage.wgsl(self.by_quads(name)).to_owned()));
        }
        if let Some(number) = self.lengths_binding() {
            words.push(("LENGTHS_BINDING".to_owned(), number.to_string()));
        }
        Definitions { flags, words, params: kernel.params_layout().wgsl() }
    }

    /// How an activation that is read is stored; f32 where the kernel does not read it. A residual
    /// is stored as x.
    fn storage(&self, name: &str) -> Storage {
        match name {
            "grad_output" => self.kernel.upstream().map(|upstream| upstream.grad_output),
            _ => self.kernel.x(),
        }
        .unwrap_or_default()
    }

    /// Whether an activation is read four values at once.
    fn by_quads(&self, name: &str) -> bool {
        let is_strided = name == "grad_output"
            && self.kernel.upstream().is_some_and(|upstream| upstream.strided);
        self.kernel.elements() != Elements::Single && !is_strided
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::PARTS;
    use super::*;

    /// The operands of directives of all files: flags of conditions, or what is imported.
    fn operands(directive: &str) -> BTreeSet<String> {
        let kernels = Variant::all().into_iter().map(|variant| variant.kernel.file().1);
        let files = PARTS.iter().map(|(_, source)| *source).chain(kernels);
        let of_file = |source: &'static str| {
            let operands =
                source.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix(' '));
            operands.map(|operand| operand.trim_start_matches('!').to_owned())
        };
        files.flat_map(of_file).collect()
    }

    #[test]
    fn every_condition_is_about_a_flag_that_some_variant_sets() {
        let dialects = [Dialect::Full, Dialect::Glsl430];
        let variants = Variant::all();
        let flags = variants
            .iter()
            .flat_map(|variant| dialects.map(|dialect| variant.definitions(dialect).flags));
        let set: BTreeSet<String> = flags.flatten().collect();
        let of_operand = |flag: &str| {
            flag.strip_prefix("OPERAND_").is_some_and(|kind| {
                ["x", "residual", "grad_output"]
                    .iter()
                    .any(|operand| set.contains(&format!("{operand}_{kind}")))
            })
        };
        let asked = operands("#if");
        assert!(asked.len() > 10);
        let unknown: Vec<&String> =
            asked.iter().filter(|flag| !set.contains(*flag) && !of_operand(flag)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn every_condition_of_a_file_ends_in_it_and_has_one_else_at_most() {
        let kernels = Variant::all().into_iter().map(|variant| variant.kernel.file());
        for (name, source) in PARTS.iter().copied().chain(kernels) {
            // Whether each open condition is in its #else branch.
            let mut open = Vec::new();
            for line in source.lines() {
                match line.split(' ').next() {
                    Some("#if") => open.push(false),
                    Some("#else") => {
                        assert_eq!(open.pop(), Some(false), "{name}");
                        open.push(true);
                    }
                    Some("#endif") => assert!(open.pop().is_some(), "{name}"),
                    _ => {}
                }
            }
            assert!(open.is_empty(), "{name}");
        }
    }

    #[test]
    fn every_part_is_imported_and_no_directive_is_left_in_a_source() {
        let imported: BTreeSet<String> = operands("#import")
            .into_iter()
            .filter_map(|what| Some(what.split('(').next()?.to_owned()))
            .collect();
        let parts: BTreeSet<String> =
            PARTS.iter().map(|(name, _)| (*name).to_owned()).chain(["params".into()]).collect();
        assert_eq!(imported, parts);
        for variant in Variant::all() {
            let source = variant.source();
            let left: Vec<&str> = source.lines().filter(|line| line.starts_with('#')).collect();
            assert!(left.is_empty(), "{variant:?}: {left:?}");
        }
    }
}
