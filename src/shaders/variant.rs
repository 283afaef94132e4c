//! A kernel together with what of its text changes: storage types, and how its buffers are bound.

use super::{Binding, Kernel};

/// How an activation that a kernel reads is stored, and by which instructions it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Storage {
    /// f32.
    #[default]
    F32,
    /// f16, two to a word, decoded by integer arithmetic.
    F16,
    /// bf16, two to a word.
    BF16,
    /// f16 as the device's own type; needs its feature `SHADER_F16`.
    NativeF16,
}

impl Storage {
    const ALL: [Self; 4] = [Self::F32, Self::F16, Self::BF16, Self::NativeF16];

    /// Bytes of one element of the array in the shader: words of packed types.
    pub fn element_bytes(self) -> u32 {
        if self == Self::NativeF16 { 2 } else { 4 }
    }

    /// The bits are those of an f16.
    fn is_f16(self) -> bool {
        matches!(self, Self::F16 | Self::NativeF16)
    }

    /// Whether one kernel may read or write both: one type, or f32 with one of the others.
    fn goes_with(self, other: Self) -> bool {
        self == other || self == Self::F32 || other == Self::F32
    }

    fn load_text(self) -> &'static str {
        match self {
            Self::F32 => include_str!("../../shaders/parts/load_f32.wgsl"),
            Self::F16 => include_str!("../../shaders/parts/load_f16.wgsl"),
            Self::BF16 => include_str!("../../shaders/parts/load_bf16.wgsl"),
            Self::NativeF16 => include_str!("../../shaders/parts/load_native_f16.wgsl"),
        }
    }
}

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
    /// Whether the output is written over what it is made of: y over x, grad_input over grad_output. The one buffer is
    /// bound once, because a kernel may not bind a range twice for writing.
    pub in_place: bool,
}

impl Variant {
    /// The variant for f32 activations in buffers of their own.
    pub fn new(kernel: Kernel) -> Self {
        let storage = Storage::default();
        let (x, grad_output) = (storage, storage);
        Self { kernel, shared_buffer: false, x, grad_output, writes_bf16: false, mask: false, in_place: false }
    }

    /// Every variant that a plan can ask for.
    pub fn all() -> Vec<Self> {
        let mut variants = Vec::new();
        for &kernel in Kernel::ALL {
            for x in storages(kernel, "x") {
                for grad_output in storages(kernel, "grad_output") {
                    for flags in 0..16 {
                        let [writes_bf16, shared_buffer, mask, in_place] = [1, 2, 4, 8].map(|bit| flags & bit != 0);
                        let variant = Self { kernel, shared_buffer, x, grad_output, writes_bf16, mask, in_place };
                        variants.extend(variant.is_asked_for().then_some(variant));
                    }
                }
            }
        }
        variants
    }

    /// Whether the storage types go together: one 16-bit type in a call, and the gradient of x stored as x.
    fn is_asked_for(&self) -> bool {
        let Self { kernel, x, grad_output, writes_bf16, mask, in_place, .. } = *self;
        if (mask && !kernel.has_side()) || (in_place && !self.may_write_over()) {
            return false;
        }
        let output = if writes_bf16 { Storage::BF16 } else { Storage::F16 };
        let agree = |a: Storage, b: Storage| a.goes_with(b) || (a.is_f16() && b.is_f16());
        // Native loads are a matter of the device, which is the same for x and grad_output.
        let mixed_loads = [x, grad_output].contains(&Storage::NativeF16) && [x, grad_output].contains(&Storage::F16);
        agree(x, grad_output)
            && !mixed_loads
            && match kernel {
                Kernel::NormalizeWords => agree(x, output),
                Kernel::GradInputWords | Kernel::GradInputAndResidualWords => {
                    x != Storage::F32 && agree(x, output) && agree(grad_output, output)
                }
                Kernel::GradInput | Kernel::GradInputAndResidual => x == Storage::F32 && !writes_bf16,
                _ => !writes_bf16,
            }
    }

    /// Whether what is written may lie over what it is made of: both are of one storage type.
    fn may_write_over(&self) -> bool {
        let output = match (self.kernel.writes_words(), self.writes_bf16) {
            (false, _) => Storage::F32,
            (true, false) => Storage::F16,
            (true, true) => Storage::BF16,
        };
        // What is read from the words that are written is not of the device's own f16.
        self.kernel.over().is_some_and(|[source, _]| self.storage(source) == output)
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

    /// Bytes of one element of a storage buffer's array.
    pub fn element_bytes(&self, binding: &Binding) -> u32 {
        binding.element_bytes.unwrap_or_else(|| self.storage(binding.name).element_bytes())
    }

    fn storage(&self, name: &str) -> Storage {
        // A residual is stored as x.
        if name == "grad_output" { self.grad_output } else { self.x }
    }

    /// The WGSL text; the entry point is `main`, of [`WORKGROUP_SIZE`](super::WORKGROUP_SIZE) invocations.
    pub fn source(&self) -> String {
        let mut text = String::new();
        if self.needs_native_f16() {
            text.push_str("enable f16;\n\n");
        }
        let activations = || self.bindings().iter().zip(1..).filter(|(slot, _)| slot.element_bytes.is_none());
        if activations().any(|(slot, _)| self.storage(slot.name) == Storage::F16) {
            text.push_str(include_str!("../../shaders/parts/decode_f16.wgsl"));
        }
        for (slot, binding) in activations() {
            let load = self.storage(slot.name).load_text();
            text.push_str(&match self.kernel.over().filter(|_| !self.declares(slot)) {
                Some([source, target]) => load_from(load, source, target),
                None => load.replace("OPERAND", slot.name).replace("BINDING", &binding.to_string()),
            });
        }
        if self.kernel.writes_words() {
            text.push_str(match self.writes_bf16 {
                true => include_str!("../../shaders/parts/encode_bf16.wgsl"),
                false => include_str!("../../shaders/parts/encode_f16.wgsl"),
            });
        }
        text.push_str(&self.kernel.parts(self.mask).join("\n"));
        if self.shared_buffer { text.replace("<storage, read>", "<storage, read_write>") } else { text }
    }
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
