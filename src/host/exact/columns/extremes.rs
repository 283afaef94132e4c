//! Ranges of columns.

use pulp::Simd;

use crate::host::exact::extremes::{MAGNITUDE, ends, take};
use crate::host::exact::join_ends;
use crate::host::exact::registers::{Kernel, Registers, run};
use crate::host::traversal::{Columns, PATCH_COLUMNS};

/// The smallest and the largest value of every column, and the bits of the largest magnitude.
#[derive(Debug)]
pub(in crate::host::exact) struct ColumnExtremes {
    low: Vec<f32>,
    high: Vec<f32>,
    bits: Vec<u32>,
}

impl ColumnExtremes {
    pub fn new(columns: usize) -> Self {
        Self {
            low: vec![f32::INFINITY; columns],
            high: vec![f32::NEG_INFINITY; columns],
            bits: vec![0; columns],
        }
    }

    /// Takes in rows of neighbouring columns, `column` and on, at most a patch.
    #[inline(always)]
    pub fn add<S: Simd, const SYMMETRIC: bool>(
        &mut self,
        simd: S,
        column: usize,
        len: usize,
        rows: &[[&[f32]; 2]],
    ) {
        debug_assert!(len <= PATCH_COLUMNS);
        let kernel = AddRows::<SYMMETRIC> { to: self, column, len, rows };
        if let Err(AddRows { to, .. }) = run(simd, kernel) {
            to.add_portably::<SYMMETRIC>(column, len, rows, 0);
        }
    }

    /// The same for the columns from `start` on, by comparisons of values.
    ///
    /// ```text
    /// for row:
    ///     for column:  bits = max(bits, bits of |x|);  low = min(low, x);  high = max(high, x)
    /// ```
    ///
    /// The inner loop goes over columns, which do not depend on each other, so LLVM can compare a
    /// register of them at a time. A symmetric range has no `low` and `high`.
    #[inline(always)]
    fn add_portably<const SYMMETRIC: bool>(
        &mut self,
        column: usize,
        len: usize,
        rows: &[[&[f32]; 2]],
        start: usize,
    ) {
        let all = column + start..column + len;
        let low = &mut self.low[all.clone()];
        let high = &mut self.high[all.clone()];
        let bits = &mut self.bits[all];
        for [_, x] in rows {
            let x = &x[start..len];
            for i in 0..len - start {
                take::<SYMMETRIC>(x[i], &mut low[i], &mut high[i], &mut bits[i]);
            }
        }
    }

    /// The ends of every channel; NaN where a value is not finite.
    pub fn ends<const SYMMETRIC: bool>(&self, columns: Columns, channels: usize) -> Vec<[f32; 2]> {
        let width = channels * columns.repeat;
        let mut all = vec![[f32::INFINITY, f32::NEG_INFINITY]; channels];
        for at in 0..self.bits.len() {
            let to = &mut all[at % width / columns.repeat];
            *to = join_ends(*to, ends::<SYMMETRIC>(self.low[at], self.high[at], self.bits[at]));
        }
        all
    }
}

/// Takes rows in.
struct AddRows<'a, const SYMMETRIC: bool> {
    to: &'a mut ColumnExtremes,
    column: usize,
    len: usize,
    rows: &'a [[&'a [f32]; 2]],
}

impl<const SYMMETRIC: bool> Kernel for AddRows<'_, SYMMETRIC> {
    /// ```text
    /// for a register's width of columns, 16 of AVX-512:
    ///     low, high, bits ← those of the columns
    ///     for row:
    ///         low = min(x, low);  high = max(x, high)         not if the range is symmetric
    ///         bits = max(bits, bits of |x|)
    ///     those of the columns ← low, high, bits
    /// ```
    ///
    /// 1. low, high and bits stay in registers for all rows of a patch.
    /// 2. Rows are compared elementwise, so no comparison crosses the lanes of a register.
    /// 3. A symmetric range takes two operations for a register of x, another one takes four.
    /// 4. min(x, low) is `low` where x is NaN, or NaN on Arm. The bits detect a NaN either way.
    #[inline(always)]
    fn run<R: Registers>(self, of: R) {
        let Self { to, column, len, rows } = self;
        let whole = len / R::F32_LANES * R::F32_LANES;
        let all = column..column + whole;
        let lows = R::as_mut_simd_f32s(&mut to.low[all.clone()]).0;
        let highs = R::as_mut_simd_f32s(&mut to.high[all.clone()]).0;
        let bits = R::as_mut_simd_u32s(&mut to.bits[all]).0;
        let each = lows.iter_mut().zip(highs).zip(bits).enumerate();
        for (i, ((low, high), bits)) in each {
            let start = i * R::F32_LANES;
            let mut lowest = *low;
            let mut highest = *high;
            let mut most = *bits;
            for [_, x] in rows {
                let x = R::as_simd_f32s(&x[start..start + R::F32_LANES]).0[0];
                if !SYMMETRIC {
                    lowest = of.min_f32s(x, lowest);
                    highest = of.max_f32s(x, highest);
                }
                let magnitude = of.and_u32s(of.transmute_u32s_f32s(x), of.splat_u32s(MAGNITUDE));
                most = of.max_u32s(most, magnitude);
            }
            (*low, *high, *bits) = (lowest, highest, most);
        }
        to.add_portably::<SYMMETRIC>(column, len, rows, whole);
    }
}
