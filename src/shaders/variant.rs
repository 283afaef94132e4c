//! A kernel together with what of its text changes: storage types, and how its buffers are bound.

use super::{Binding, Constants, Kernel, Storage};

/// A kernel together with what of its text changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The kernel.
    pub kernel: Kernel,
    /// Whether every storage buffer is bound `read_write`: needed where inputs and outputs are slices of one
    /// `wgpu::Buffer`, which may not be bound for reading and for writing in one dispatch.
    pub shared_buffer: bool,
    /// Storage of x; `F32` where the kernel does not read it.
    pub x: Storage,
    /// Storage of grad_output; `F32` where the kernel does not read it.
    pub grad_output: Storage,
    /// Whether a 16-bit output is bf16; without meaning for others.
    pub writes_bf16: bool,
    /// Whether a mask of the activation is kept, or read instead of the residual.
    pub mask: bool,
    /// Whether values are read and written four at a time.
    pub quads: bool,
    /// Whether those of grad_output lie apart, in another layout than x; without meaning for single values.
    pub g_apart: bool,
    /// Whether what is written by fours is of 16 bits; without meaning for single values.
    pub writes_quads_of_words: bool,
    /// Whether the output is written over what it is made of: y over x, grad_input over grad_output. The one buffer is
    /// bound once, because a kernel may not bind a range twice for writing.
    pub in_place: bool,
    /// Whether four rows of a tile merge within a subgroup, of neighbouring invocations.
    pub subgroups: bool,
    /// What a call tells the kernel once and not for every value.
    pub constants: Constants,
}

impl Variant {
    /// The variant for f32 activations in buffers of their own.
    pub fn new(kernel: Kernel) -> Self {
        let storage = Storage::default();
        let (x, grad_output) = (storage, storage);
        Self {
            kernel,
            shared_buffer: false,
            x,
            grad_output,
            writes_bf16: false,
            mask: false,
            quads: false,
            g_apart: false,
            writes_quads_of_words: false,
            in_place: false,
            subgroups: false,
            constants: Constants::default(),
        }
    }

    /// Every variant that a plan can ask for, but for its constants: none of them set, or all that it knows.
    pub fn all() -> Vec<Self> {
        let mut variants = Vec::new();
        for &kernel in Kernel::ALL {
            for x in storages(kernel, "x") {
                for grad_output in storages(kernel, "grad_output") {
                    for flags in 0..256 {
                        let flag = |bit: u32| flags >> bit & 1 != 0;
                        let variant = Self {
                            kernel,
                            shared_buffer: flag(0),
                            x,
                            grad_output,
                            writes_bf16: flag(1),
                            mask: flag(2),
                            quads: flag(3),
                            g_apart: flag(4),
                            writes_quads_of_words: flag(5),
                            in_place: flag(6),
                            subgroups: flag(7),
                            constants: Constants::default(),
                        };
                        if variant.is_asked_for() {
                            let known = Constants::all_of(&variant.source());
                            let constants = Constants { four_channels: variant.quads && !variant.subgroups, ..known };
                            variants.push(variant);
                            variants.extend((constants != variant.constants).then_some(Self { constants, ..variant }));
                        }
                    }
                }
            }
        }
        variants
    }

    /// Whether the flags fit the kernel, and the storage types go together: one 16-bit type in a call, and the gradient of
    /// x stored as x.
    fn is_asked_for(&self) -> bool {
        let Self { kernel, x, grad_output, .. } = *self;
        let agree = |a: Storage, b: Storage| a.goes_with(b) || (a.is_f16() && b.is_f16());
        // Native loads are a matter of the device, which is the same for x and grad_output.
        let mixed_loads = [x, grad_output].contains(&Storage::NativeF16) && [x, grad_output].contains(&Storage::F16);
        let stored_well = match self.output() {
            Some(output) if kernel.writes_gradient() => {
                agree(x, output) && (x == Storage::F32) == (output == Storage::F32)
            }
            Some(output) => agree(x, output),
            None => true,
        };
        let flags_fit = (!self.mask || kernel.has_side())
            && (!self.quads || kernel.has_quads())
            && (!self.g_apart || (self.quads && kernel.reads_gradient() && !self.in_place))
            && (!self.writes_quads_of_words || (self.quads && self.output().is_some()))
            && (!self.writes_bf16 || self.output() == Some(Storage::BF16))
            && (!self.in_place || self.may_write_over())
            && (!self.subgroups || kernel.merges_rows());
        agree(x, grad_output) && !mixed_loads && stored_well && flags_fit
    }

    /// How an activation that it writes is stored, packed in words where it has 16 bits; `None` where it writes sums.
    fn output(&self) -> Option<Storage> {
        self.kernel.over()?;
        Some(match (self.kernel.writes_words() || self.writes_quads_of_words, self.writes_bf16) {
            (false, _) => Storage::F32,
            (true, false) => Storage::F16,
            (true, true) => Storage::BF16,
        })
    }

    /// Whether what is written may lie over what it is made of: both are of one storage type. What is read from the words
    /// that are written is not of the device's own f16, nor then is anything else.
    fn may_write_over(&self) -> bool {
        let is_native = [self.x, self.grad_output].contains(&Storage::NativeF16);
        self.kernel.over().is_some_and(|[source, _]| Some(self.storage(source)) == self.output()) && !is_native
    }

    /// The storage buffers in binding order.
    pub fn bindings(&self) -> &'static [Binding] {
        self.kernel.bindings(self.mask)
    }

    /// Whether the text declares a buffer: one that is written over what it is made of stands for both.
    pub fn declares(&self, binding: &Binding) -> bool {
        !self.in_place || self.kernel.over().is_none_or(|[source, _]| source != binding.name)
    }

    /// Whether it needs the device feature `SHADER_F16`.
    pub fn needs_native_f16(&self) -> bool {
        [self.x, self.grad_output].contains(&Storage::NativeF16)
    }

    /// Whether it needs the device feature `SUBGROUP`.
    pub fn needs_subgroups(&self) -> bool {
        self.subgroups
    }

    /// Bytes of one element of a storage buffer's array.
    pub fn element_bytes(&self, binding: &Binding) -> u32 {
        if !self.quads {
            return binding.element_bytes.unwrap_or_else(|| self.storage(binding.name).element_bytes());
        }
        match (binding.name, binding.element_bytes) {
            ("grad_output", _) if self.g_apart => self.grad_output.element_bytes(),
            (name, None) => self.storage(name).quad_bytes(),
            ("y" | "grad_input" | "grad_residual", _) => self.output().unwrap_or_default().quad_bytes(),
            ("mask", _) => 8,
            (_, Some(bytes)) => bytes,
        }
    }

    fn storage(&self, name: &str) -> Storage {
        // A residual is stored as x.
        if name == "grad_output" { self.grad_output } else { self.x }
    }

    /// The WGSL text; the entry point is `main`, of [`WORKGROUP_SIZE`](super::WORKGROUP_SIZE) invocations.
    pub fn source(&self) -> String {
        let text = self.body();
        let enabled = if self.needs_native_f16() { "enable f16;\n\n" } else { "" };
        format!("{enabled}{}{text}", self.constants.declared_for(&text))
    }

    /// The text without its constants.
    fn body(&self) -> String {
        let mut text = String::new();
        let activations = || self.bindings().iter().zip(1..).filter(|(slot, _)| slot.element_bytes.is_none());
        let is_apart = |slot: &Binding| !self.quads || (self.g_apart && slot.name == "grad_output");
        let decoded = |slot: &Binding| self.storage(slot.name) == Storage::F16;
        if activations().any(|(slot, _)| decoded(slot) && is_apart(slot)) {
            text.push_str(include_str!("../../shaders/parts/decode_f16.wgsl"));
        }
        if activations().any(|(slot, _)| decoded(slot) && !is_apart(slot)) {
            text.push_str(include_str!("../../shaders/quads/decode_f16.wgsl"));
        }
        for (slot, binding) in activations() {
            let storage = self.storage(slot.name);
            let load = if is_apart(slot) { storage.load_text() } else { storage.load_quads_text() };
            let declared = |name: &str| {
                let load = if name == slot.name { load.to_owned() } else { load.replace("load_OPERAND", name) };
                load.replace("OPERAND", slot.name).replace("BINDING", &binding.to_string())
            };
            text.push_str(&match self.kernel.over().filter(|_| !self.declares(slot)) {
                Some([source, target]) => load_from(load, source, target),
                None if self.quads && is_apart(slot) => {
                    declared("load_single") + include_str!("../../shaders/quads/apart.wgsl")
                }
                None => declared(slot.name),
            });
        }
        if self.quads {
            let output = self.output();
            text.push_str(match output {
                Some(Storage::BF16) => include_str!("../../shaders/quads/encode_bf16.wgsl"),
                Some(Storage::F16) => include_str!("../../shaders/quads/encode_f16.wgsl"),
                _ => include_str!("../../shaders/quads/pack_f32.wgsl"),
            });
            let quad = if output == Some(Storage::F32) { "vec4<f32>" } else { "vec2<u32>" };
            text.push_str(
                &self
                    .kernel
                    .quad_parts(self.mask, self.constants.four_channels, self.subgroups)
                    .join("\n")
                    .replace("QUAD", quad),
            );
            return if self.shared_buffer { bound_for_writing(&text) } else { text };
        }
        if self.kernel.writes_words() {
            text.push_str(match self.writes_bf16 {
                true => include_str!("../../shaders/parts/encode_bf16.wgsl"),
                false => include_str!("../../shaders/parts/encode_f16.wgsl"),
            });
        }
        text.push_str(&self.kernel.parts(self.mask, self.subgroups).join("\n"));
        if self.shared_buffer { bound_for_writing(&text) } else { text }
    }
}

/// The text with every storage buffer bound for writing.
fn bound_for_writing(text: &str) -> String {
    text.replace("<storage, read>", "<storage, read_write>")
}

/// The text by which a kernel reads `source` from the buffer of `target`, which it declares itself.
fn load_from(load: &str, source: &str, target: &str) -> String {
    let without_declaration = load.lines().filter(|line| !line.starts_with("@group"));
    let mut text = String::new();
    for line in without_declaration {
        text.push_str(&line.replace("OPERAND[", &format!("{target}[")).replace("OPERAND", source));
        text.push('\n');
    }
    text
}

/// The storages in which a kernel may find an activation: all, or the default where it does not read it.
fn storages(kernel: Kernel, name: &str) -> Vec<Storage> {
    match kernel.bindings(false).iter().any(|slot| slot.name == name) {
        true => Storage::ALL.to_vec(),
        false => vec![Storage::default()],
    }
}
