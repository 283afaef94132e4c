//! Sums of columns in registers.

use super::{ColumnGrids, ColumnSums};
use crate::host::exact::lanes::DEPTH;
use crate::host::exact::registers::{Kernel, Registers};
use crate::host::exact::terms::{MOMENTS, RESTS};

/// Rows whose integers an i32 adds up: |Σ| ≤ 4·(2²⁹ − 32).
const GROUP: usize = 4;

/// Adds rows to the sums of `len` columns, a multiple of every register's width.
pub(super) struct AddRows<'a, const OP: u8> {
    pub sums: &'a mut ColumnSums,
    pub column: usize,
    pub len: usize,
    pub grids: &'a ColumnGrids,
    pub rows: &'a [[&'a [f32]; 2]],
}

impl<const OP: u8> Kernel for AddRows<'_, OP> {
    /// ```text
    /// for a register's width of columns, 16 of AVX-512:
    ///     for four rows:
    ///         for row:   t = x·scale + offset;  q = round(t)
    ///                    group += q
    ///                    second += q·q (or q·w), even and odd columns separately
    ///         first += group, even and odd columns separately
    ///     first, low, high ← these in the order of the columns
    /// ```
    ///
    /// The sums of 16 rows stay in registers. A load and a store of each sum and a permutation
    /// follow once per 16 rows, about one operation per row.
    #[inline(always)]
    fn run<R: Registers>(self, registers: R) {
        let Self { sums, column, len, grids, rows } = self;
        let mut values: [[&[R::f32s]; 2]; DEPTH] = [[&[]; 2]; DEPTH];
        for (values, row) in values.iter_mut().zip(rows) {
            *values = row.map(|of| R::as_simd_f32s(&of[..len]).0);
        }
        let values = &values[..rows.len()];
        let all = column..column + len;
        let [x_scale, x_offset, g_scale] =
            [&grids.x[0], &grids.x[1], &grids.g[0]].map(|of| R::as_simd_f32s(&of[all.clone()]).0);
        let ColumnSums { first, low, high, third } = sums;
        let [first, low, high, third] =
            [first, low, high, third].map(|of| R::as_mut_simd_i64s(&mut of[all.clone()]).0);
        let pairs = first.as_chunks_mut::<2>().0.iter_mut();
        let pairs = pairs.zip(low.as_chunks_mut::<2>().0).zip(high.as_chunks_mut::<2>().0);
        let pairs = pairs.zip(third.as_chunks_mut::<2>().0);
        for (i, (((first, low), high), third)) in pairs.enumerate() {
            let of_x = [x_scale[i], x_offset[i]];
            let of = Columns::<R, OP> { registers, of_x, of_g: g_scale[i] };
            let [of_first, second, of_third] = of.sums(values, i);
            let mask = registers.splat_i64s(0xffff_ffff);
            for half in 0..2 {
                let lower = registers.and_i64s(second[half], mask);
                first[half] = registers.add_i64s(first[half], of_first[half]);
                low[half] = registers.add_i64s(low[half], lower);
                high[half] = registers.add_i64s(high[half], registers.high(second[half]));
                if OP == RESTS {
                    third[half] = registers.add_i64s(third[half], of_third[half]);
                }
            }
        }
    }
}

/// The constants of a register's width of columns.
#[derive(Clone, Copy)]
struct Columns<R: Registers, const OP: u8> {
    registers: R,
    of_x: [R::f32s; 2],
    of_g: R::f32s,
}

impl<R: Registers, const OP: u8> Columns<R, OP> {
    /// The three sums over the rows of the `i`th register of each, in the order of the columns.
    #[inline(always)]
    fn sums(self, rows: &[[&[R::f32s]; 2]], i: usize) -> [[R::i64s; 2]; 3] {
        let of = self.registers;
        let mut first = [of.splat_i64s(0); 2];
        let mut second = first;
        let mut third = first;
        for rows in rows.chunks(GROUP) {
            let mut group = of.splat_i32s(0);
            for [x, g] in rows {
                let t = of.fused(x[i], self.of_x[0], self.of_x[1]);
                let q = of.rounded(t);
                let taken = match OP {
                    MOMENTS => q,
                    RESTS => {
                        // Exact: t has 24 digits, and the nearest integer is next to it.
                        let finer = of.splat_f32s((1 << 24) as f32);
                        of.rounded(of.mul_f32s(of.sub_f32s(t, of.near(q)), finer))
                    }
                    _ => of.rounded(of.mul_f32s(g[i], self.of_g)),
                };
                group = of.add_i32s(group, taken);
                second = self.plus(second, of.products(q, taken));
                if OP == RESTS {
                    third = self.plus(third, of.products(taken, taken));
                }
            }
            first = self.plus(first, of.products(group, of.splat_i32s(1)));
        }
        [of.in_order(first), of.in_order(second), of.in_order(third)]
    }

    #[inline(always)]
    fn plus(self, a: [R::i64s; 2], b: [R::i64s; 2]) -> [R::i64s; 2] {
        [self.registers.add_i64s(a[0], b[0]), self.registers.add_i64s(a[1], b[1])]
    }
}
