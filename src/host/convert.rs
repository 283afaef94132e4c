//! Storage types to f32 and back, in runs: by the processor's own SIMD instructions where it has
//! them.
//!
//! ```text
//! widen:   f32: copy    f16: convert instruction    bf16: bits << 16
//! narrow:  f32: copy    f16: convert instruction    bf16: bits + 0x7fff + odd, >> 16
//! ```
//!
//! A conversion works on a block in the first cache, just before or after the kernel that computes
//! with it, so that memory sees 16-bit values only. The loops over bf16 are integer arithmetic
//! without a branch, inlined into the kernels, so that LLVM makes vector code of them with the
//! instructions of the kernel. f16 has instructions of its own (F16C, AVX-512) in functions of
//! their own, chosen at run time once per block.

use half::f16;

use super::intrinsics::{narrow_f16, widen_f16};
use crate::dtype::{DType, Element};

/// Widens as many values as there are.
#[inline(always)]
pub(super) fn widen<T: Element>(values: &[T], to: &mut [f32]) {
    match T::DTYPE {
        DType::F32 => to.copy_from_slice(bytemuck::cast_slice(values)),
        DType::F16 => widen_f16(bytemuck::cast_slice::<T, f16>(values), to),
        DType::BF16 => {
            for (to, bits) in to.iter_mut().zip(bytemuck::cast_slice::<T, u16>(values)) {
                *to = f32::from_bits(u32::from(*bits) << 16);
            }
        }
    }
}

/// Rounds as many values as there are to the nearest that the type has, ties to even.
#[inline(always)]
pub(super) fn narrow<T: Element>(values: &[f32], to: &mut [T]) {
    match T::DTYPE {
        DType::F32 => bytemuck::cast_slice_mut(to).copy_from_slice(values),
        DType::F16 => narrow_f16(values, bytemuck::cast_slice_mut::<T, f16>(to)),
        DType::BF16 => {
            for (to, value) in bytemuck::cast_slice_mut::<T, u16>(to).iter_mut().zip(values) {
                *to = bf16_bits(*value);
            }
        }
    }
}

/// The bits of the nearest bf16, ties to even; a NaN stays one. Without a branch, so that it
/// becomes vector code.
#[inline(always)]
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // The bit of a quiet NaN, because the payload of a NaN may lie in the half that is cut off.
    let nan = (bits >> 16) | 0x40;
    (if value.is_nan() { nan } else { rounded }) as u16
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// From one pattern to the next that is taken: Miri takes minutes for all of them.
    const STEP: usize = if cfg!(miri) { 251 } else { 1 };

    /// Every f16 and bf16, and what lies a little and exactly half way beside them.
    fn values() -> impl Iterator<Item = f32> {
        let halves = (0..=u16::MAX)
            .step_by(STEP)
            .flat_map(|bits| [f16::from_bits(bits).to_f32(), bf16::from_bits(bits).to_f32()]);
        halves.flat_map(|value| {
            [0u32, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001]
                .map(|more| f32::from_bits(value.to_bits().wrapping_add(more)))
        })
    }

    #[test]
    fn rounding_is_that_of_the_storage_types_for_every_neighbour_of_every_value() {
        let values: Vec<f32> = values().collect();
        let mut halves = vec![f16::ZERO; values.len()];
        let mut brains = vec![bf16::ZERO; values.len()];
        narrow(&values, &mut halves);
        narrow(&values, &mut brains);
        for ((value, half), brain) in values.iter().zip(&halves).zip(&brains) {
            assert_eq!(half.to_bits(), f16::from_f32(*value).to_bits(), "f16 of {value:e}");
            assert_eq!(brain.to_bits(), bf16::from_f32(*value).to_bits(), "bf16 of {value:e}");
        }
    }

    #[test]
    fn widening_is_exact_for_every_pattern_in_runs_of_every_remainder() {
        for length in [1, 7, 8, 9, 64, 65_536 / STEP] {
            let halves: Vec<f16> =
                (0..length).map(|i| f16::from_bits((i * (65_536 / length)) as u16)).collect();
            let brains: Vec<bf16> =
                halves.iter().map(|half| bf16::from_bits(half.to_bits())).collect();
            let mut wide = vec![0.0; length];
            widen(&halves, &mut wide);
            assert!(
                halves
                    .iter()
                    .zip(&wide)
                    .all(|(half, wide)| half.to_f32().to_bits() == wide.to_bits())
            );
            widen(&brains, &mut wide);
            assert!(brains.iter().zip(&wide).all(|(brain, wide)| {
                brain.to_f32().to_bits() == wide.to_bits() || (brain.is_nan() && wide.is_nan())
            }));
        }
    }
}
