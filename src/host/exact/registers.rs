//! Registers whose instructions multiply integers: AVX-512, AVX2 and NEON.
//!
//! Owns the operations that pulp has for one instruction set only, under names that all of them
//! share, and the choice of kernels: those of registers where there are some, portable ones
//! elsewhere. Integers add in any order, so that all have the same sums.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::any::{Any, TypeId};

use pulp::Simd;

/// Operations on f32, and on integers of 32 and 64 bits.
pub(super) trait Registers: Simd {
    /// The nearest integers, ties to even. A number that i32 does not hold has none of a meaning.
    fn rounded(self, t: Self::f32s) -> Self::i32s;

    /// The nearest f32.
    fn near(self, q: Self::i32s) -> Self::f32s;

    /// a·b of all lanes: half of the products, then the others.
    fn products(self, a: Self::i32s, b: Self::i32s) -> [Self::i64s; 2];

    /// [`products`](Self::products) in the order of the lanes.
    fn in_order(self, products: [Self::i64s; 2]) -> [Self::i64s; 2];

    /// The integer below v/2³².
    fn high(self, v: Self::i64s) -> Self::i64s;

    /// a·b + c, rounded once.
    #[inline(always)]
    fn fused(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        self.mul_add_f32s(a, b, c)
    }

    /// Which lanes are among the first `n`.
    #[inline(always)]
    fn within(self, n: usize) -> Self::m32s {
        let indices = Self::as_simd_u32s(&INDICES).0;
        self.less_than_u32s(indices[0], self.splat_u32s(n as u32))
    }
}

/// The index of every lane of the widest register.
const INDICES: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// A kernel for registers of any width.
pub(super) trait Kernel {
    /// Runs it. It must be inlined, because only then the processor's instructions are used.
    fn run<R: Registers>(self, registers: R);
}

/// Runs a kernel with the registers of `simd`; gives it back where it has none.
#[inline(always)]
pub(super) fn run<S: Simd, K: Kernel>(simd: S, kernel: K) -> Result<(), K> {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(registers) = same::<S, pulp::x86::V4>(&simd) {
            kernel.run(registers);
            return Ok(());
        }
        if let Some(registers) = same::<S, pulp::x86::V3>(&simd) {
            kernel.run(registers);
            return Ok(());
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if let Some(registers) = same::<S, pulp::aarch64::Neon>(&simd) {
            kernel.run(registers);
            return Ok(());
        }
        if let Some(registers) = same::<S, pulp::aarch64::NeonFcma>(&simd) {
            kernel.run(*registers);
            return Ok(());
        }
    }
    let _ = simd;
    Err(kernel)
}

/// `simd` where it is of this type, which the compiler knows.
#[inline(always)]
fn same<S: Simd, R: Simd>(simd: &S) -> Option<R> {
    if TypeId::of::<S>() != TypeId::of::<R>() {
        return None;
    }
    (simd as &dyn Any).downcast_ref::<R>().copied()
}
