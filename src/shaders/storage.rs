//! How activations are stored, as kernels see them.

use crate::dtype::DType;

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
    /// f16, two to a word, converted by the device's own instructions.
    NativeF16,
}

impl Storage {
    pub(super) const ALL: [Self; 4] = [Self::F32, Self::F16, Self::BF16, Self::NativeF16];

    /// How a kernel reads a type by integer arithmetic.
    pub fn packed(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::BF16 => Self::BF16,
        }
    }

    /// The type that is stored.
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 | Self::NativeF16 => DType::F16,
            Self::BF16 => DType::BF16,
        }
    }

    /// Bytes of four elements.
    pub(super) fn quad_bytes(self) -> u32 {
        if self == Self::F32 { 16 } else { 8 }
    }

    /// What the shader's array is of: one value, or as many as make whole words; or four values.
    pub(super) fn wgsl(self, by_quads: bool) -> &'static str {
        match (self, by_quads) {
            (Self::F32, false) => "f32",
            (Self::F32, true) => "vec4<f32>",
            (_, false) => "u32",
            (_, true) => "vec2<u32>",
        }
    }

    /// Its name in conditions of the shader source.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::NativeF16 => "NATIVE_F16",
        }
    }

    /// Whether its values are taken from words by integer arithmetic.
    pub(super) fn is_packed(self) -> bool {
        matches!(self, Self::F16 | Self::BF16)
    }

    /// Whether one kernel may read both: one type, or f32 with one of the others. Whose conversion
    /// it is depends on the device, and so is the same for all that a kernel reads.
    pub(super) fn goes_with(self, other: Self) -> bool {
        self == other || self == Self::F32 || other == Self::F32
    }
}
