//! Sums and ranges of columns: each column is a channel's, and each row adds to all of them.

mod extremes;
mod registers;

use pulp::Simd;

use super::lanes::DEPTH;
use super::registers::run;
use super::terms::{MAGIC_BITS, second_sum, terms};
use crate::host::traversal::Columns;

pub(super) use extremes::ColumnExtremes;
use registers::AddRows;

/// Columns that are summed in registers: two of the widest registers of 64 bits.
const WIDTH: usize = 16;

/// Two sums of integers of every column over many rows.
#[derive(Debug)]
pub(super) struct ColumnSums {
    first: Vec<i64>,
    low: Vec<i64>,
    high: Vec<i64>,
    third: Vec<i64>,
}

/// Scale and offset of every column, of x and of g.
#[derive(Debug)]
pub(super) struct ColumnGrids {
    pub x: [Vec<f32>; 2],
    pub g: [Vec<f32>; 2],
}

impl ColumnGrids {
    #[inline(always)]
    fn of(&self, column: usize) -> [[f32; 2]; 2] {
        let pair = |[scale, offset]: &[Vec<f32>; 2]| [scale[column], offset[column]];
        [pair(&self.x), pair(&self.g)]
    }
}

impl ColumnSums {
    pub fn new(columns: usize) -> Self {
        let zeros = || vec![0; columns];
        Self { first: zeros(), low: zeros(), high: zeros(), third: zeros() }
    }

    /// Adds at most [`DEPTH`] rows of neighbouring columns, `column` and on.
    ///
    /// ```text
    /// for 16 columns:
    ///     first, second ← 0                     in registers, as are the grids
    ///     for row:   first += q;   second += q·q (or q·w)
    ///     sums ← sums + first, second           one load and store of each for all rows
    /// ```
    ///
    /// 1. 16 columns are independent sums, so no addition waits for another one of the same row.
    /// 2. The grids of the columns are loaded once for all rows.
    /// 3. AVX-512, AVX2 and NEON have kernels of their own ([`AddRows`]). Elsewhere the loops over
    ///    arrays of 16 are for LLVM to put into registers.
    /// 4. The columns after the last 16 go one by one through the same code. Integers have no
    ///    order, so the bits are the same.
    #[inline(always)]
    pub fn add<S: Simd, const OP: u8>(
        &mut self,
        simd: S,
        column: usize,
        len: usize,
        grids: &ColumnGrids,
        rows: &[[&[f32]; 2]],
    ) {
        debug_assert!(rows.len() <= DEPTH);
        let added = len / WIDTH * WIDTH;
        let kernel = AddRows::<OP> { sums: self, column, len: added, grids, rows };
        if let Err(AddRows { sums, .. }) = run(simd, kernel) {
            for start in (0..added).step_by(WIDTH) {
                sums.add_columns::<OP, WIDTH>(column, start, grids, rows);
            }
        }
        for start in added..len {
            self.add_columns::<OP, 1>(column, start, grids, rows);
        }
    }

    #[inline(always)]
    fn add_columns<const OP: u8, const W: usize>(
        &mut self,
        column: usize,
        start: usize,
        grids: &ColumnGrids,
        rows: &[[&[f32]; 2]],
    ) {
        let at = column + start;
        let mut of = [[[0.0; 2]; 2]; W];
        for (i, of) in of.iter_mut().enumerate() {
            *of = grids.of(at + i);
        }
        let mut first = [0i64; W];
        let mut second = [0i64; W];
        let mut third = [0i64; W];
        for [x, g] in rows {
            let x = &x[start..start + W];
            let g = &g[start..start + W];
            for i in 0..W {
                let terms = terms::<OP>(x[i], g[i], of[i]);
                first[i] = first[i].wrapping_add(terms.first);
                second[i] = second[i].wrapping_add(terms.second);
                third[i] = third[i].wrapping_add(terms.third);
            }
        }
        let magic = MAGIC_BITS.wrapping_mul(rows.len() as i64);
        let firsts = &mut self.first[at..at + W];
        let lows = &mut self.low[at..at + W];
        let highs = &mut self.high[at..at + W];
        let thirds = &mut self.third[at..at + W];
        for i in 0..W {
            firsts[i] = firsts[i].wrapping_add(first[i].wrapping_sub(magic));
            lows[i] += second[i] & 0xffff_ffff;
            highs[i] += second[i] >> 32;
            thirds[i] = thirds[i].wrapping_add(third[i]);
        }
    }

    /// Both sums of every channel: over its columns, and the folded rows.
    pub fn totals<const OP: u8>(&self, columns: Columns, channels: usize) -> Vec<[i128; 2]> {
        let width = channels * columns.repeat;
        let mut totals = vec![[0; 2]; channels];
        for at in 0..self.first.len() {
            let [first, second] = &mut totals[at % width / columns.repeat];
            *first += i128::from(self.first[at]);
            let wide = (i128::from(self.high[at]) << 32) + i128::from(self.low[at]);
            *second += second_sum::<OP>(wide, self.third[at].into());
        }
        totals
    }
}
