//! Storage types of tensors. Statistics, parameters and their gradients are f32 whatever the
//! activations are.

use std::fmt;

use half::{bf16, f16};

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit IEEE 754.
    #[default]
    F32,
    /// 16-bit IEEE 754.
    F16,
    /// The upper half of an f32.
    BF16,
}

impl DType {
    /// Bytes of an element.
    pub fn size_bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// Whether one call may read and write these two: one type, or f32 with one of the others.
    pub(crate) fn goes_with(self, other: Self) -> bool {
        self == other || self == Self::F32 || other == Self::F32
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type that tensors store: f32, [`half::f16`] or [`half::bf16`].
pub trait Element: bytemuck::Pod + fmt::Debug + PartialEq + Send + Sync + sealed::Sealed {
    /// The storage type.
    const DTYPE: DType;
    /// The value as an f32: exact.
    fn to_f32(self) -> f32;
    /// The nearest value, ties to even.
    fn from_f32(value: f32) -> Self;
}

macro_rules! element {
    ($type:ty, $dtype:ident, $to:expr, $from:expr) => {
        impl sealed::Sealed for $type {}

        impl Element for $type {
            const DTYPE: DType = DType::$dtype;

            fn to_f32(self) -> f32 {
                $to(self)
            }

            fn from_f32(value: f32) -> Self {
                $from(value)
            }
        }
    };
}

element!(f32, F32, std::convert::identity, std::convert::identity);
element!(f16, F16, f16::to_f32, f16::from_f32);
element!(bf16, BF16, bf16::to_f32, bf16::from_f32);

/// Runs an expression with a type as the [`Element`] that a storage type stands for.
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::dtype::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::dtype::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
        }
    };
}
pub(crate) use with_element;
