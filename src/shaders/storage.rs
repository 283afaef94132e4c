//! How activations are stored, and the texts by which kernels read them.

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
    pub(super) const ALL: [Self; 4] = [Self::F32, Self::F16, Self::BF16, Self::NativeF16];

    /// Bytes of one element of the array in the shader: words of packed types.
    pub fn element_bytes(self) -> u32 {
        if self == Self::NativeF16 { 2 } else { 4 }
    }

    /// Bytes of four elements.
    pub(super) fn quad_bytes(self) -> u32 {
        if self == Self::F32 { 16 } else { 8 }
    }

    /// The bits are those of an f16.
    pub(super) fn is_f16(self) -> bool {
        matches!(self, Self::F16 | Self::NativeF16)
    }

    /// Whether one kernel may read or write both: one type, or f32 with one of the others.
    pub(super) fn goes_with(self, other: Self) -> bool {
        self == other || self == Self::F32 || other == Self::F32
    }

    pub(super) fn load_quads_text(self) -> &'static str {
        match self {
            Self::F32 => include_str!("../../shaders/quads/load_f32.wgsl"),
            Self::F16 => include_str!("../../shaders/quads/load_f16.wgsl"),
            Self::BF16 => include_str!("../../shaders/quads/load_bf16.wgsl"),
            Self::NativeF16 => include_str!("../../shaders/quads/load_native_f16.wgsl"),
        }
    }

    pub(super) fn load_text(self) -> &'static str {
        match self {
            Self::F32 => include_str!("../../shaders/parts/load_f32.wgsl"),
            Self::F16 => include_str!("../../shaders/parts/load_f16.wgsl"),
            Self::BF16 => include_str!("../../shaders/parts/load_bf16.wgsl"),
            Self::NativeF16 => include_str!("../../shaders/parts/load_native_f16.wgsl"),
        }
    }
}
