//! Sums and ranges of columns: each column is a channel's, and each row adds to all of them.

use super::lanes::DEPTH;
use super::terms::{MAGIC_BITS, second_sum, terms};
use crate::host::traversal::{Columns, PATCH_COLUMNS};

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
    #[inline(always)]
    pub fn add<const OP: u8>(
        &mut self,
        column: usize,
        len: usize,
        grids: &ColumnGrids,
        rows: &[[&[f32]; 2]],
    ) {
        debug_assert!(rows.len() <= DEPTH);
        let whole = len / WIDTH * WIDTH;
        for start in (0..whole).step_by(WIDTH) {
            self.add_columns::<OP, WIDTH>(column, start, grids, rows);
        }
        for start in whole..len {
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

/// The smallest and the largest value of every column, and the bits of the largest magnitude.
#[derive(Debug)]
pub(super) struct ColumnExtremes {
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
    pub fn add<const SYMMETRIC: bool>(&mut self, column: usize, len: usize, rows: &[[&[f32]; 2]]) {
        debug_assert!(len <= PATCH_COLUMNS);
        let low = &mut self.low[column..column + len];
        let high = &mut self.high[column..column + len];
        let bits = &mut self.bits[column..column + len];
        for [_, x] in rows {
            let x = &x[..len];
            for i in 0..len {
                bits[i] = bits[i].max(x[i].to_bits() & 0x7fff_ffff);
                if !SYMMETRIC {
                    low[i] = if x[i] < low[i] { x[i] } else { low[i] };
                    high[i] = if x[i] > high[i] { x[i] } else { high[i] };
                }
            }
        }
    }

    /// The ends of every channel; NaN where a value is not finite.
    pub fn ends<const SYMMETRIC: bool>(&self, columns: Columns, channels: usize) -> Vec<[f32; 2]> {
        let width = channels * columns.repeat;
        let mut ends = vec![[f32::INFINITY, f32::NEG_INFINITY]; channels];
        for at in 0..self.bits.len() {
            let largest = f32::from_bits(self.bits[at]);
            let own = if SYMMETRIC { [-largest, largest] } else { [self.low[at], self.high[at]] };
            let to = &mut ends[at % width / columns.repeat];
            *to = super::join_ends(*to, if largest.is_finite() { own } else { [f32::NAN; 2] });
        }
        ends
    }
}
