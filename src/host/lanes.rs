//! Sums of runs of values in vector registers.
//!
//! The order of additions is fixed here and not by the width of the registers: [`LANES`] partial sums in f32, no deeper
//! than [`RUN`] / [`LANES`] additions, then f64. So results have the same bits on every instruction set.

use pulp::Simd;

use super::convert::as_f32;
use crate::dtype::Element;

/// Partial sums side by side: two of the widest registers, so that an addition need not wait for the one before.
const LANES: usize = 32;
/// Values that are summed in f32: sixteen to a lane, so that their roundings stay far below those of the result.
pub(super) const RUN: usize = 512;

/// Two sums over many values.
#[derive(Clone, Debug)]
pub(super) struct Sums([[f64; LANES]; 2]);

impl Sums {
    pub const ZERO: Self = Self([[0.0; LANES]; 2]);

    /// Both sums over all lanes.
    pub fn totals(&self) -> [f64; 2] {
        self.0.map(|lanes| {
            let mut lanes = lanes;
            let mut half = LANES / 2;
            while half > 0 {
                for i in 0..half {
                    lanes[i] += lanes[i + half];
                }
                half /= 2;
            }
            lanes[0]
        })
    }

    /// Adds Σ(x − pivot) and Σ(x − pivot)².
    #[inline(always)]
    pub fn add_moments<S: Simd, X: Element>(&mut self, simd: S, x: &[X], pivot: f32) {
        let mut scratch = [0.0; RUN];
        for x in x.chunks(RUN) {
            let x = as_f32(x, &mut scratch);
            self.add::<S, true>(simd, x, x, pivot);
        }
    }

    /// Adds Σg and Σ g·(x − pivot), of at most [`RUN`] values.
    #[inline(always)]
    pub fn add_products<S: Simd>(&mut self, simd: S, g: &[f32], x: &[f32], pivot: f32) {
        self.add::<S, false>(simd, g, x, pivot);
    }

    #[inline(always)]
    fn add<S: Simd, const MOMENTS: bool>(&mut self, simd: S, g: &[f32], x: &[f32], pivot: f32) {
        let whole = x.len() / LANES * LANES;
        let (x, last_x) = x.split_at(whole);
        if last_x.is_empty() {
            return self.fold(partial_sums::<S, MOMENTS>(simd, &g[..whole], x, None, pivot));
        }
        // Filled up with what adds nothing.
        let mut last = ([0.0; LANES], [pivot; LANES]);
        for (i, x) in last_x.iter().enumerate() {
            last.1[i] = *x;
        }
        if !MOMENTS {
            for (to, g) in last.0.iter_mut().zip(&g[whole..]) {
                *to = *g;
            }
        }
        self.fold(partial_sums::<S, MOMENTS>(simd, &g[..whole], x, Some(&last), pivot));
    }

    #[inline(always)]
    fn fold(&mut self, partial: [[f32; LANES]; 2]) {
        for (sums, partial) in self.0.iter_mut().zip(partial) {
            for (sum, partial) in sums.iter_mut().zip(partial) {
                *sum += f64::from(partial);
            }
        }
    }
}

/// Sums of d = x − pivot and d², or of g and g·d, by lane: of as many values as fill all lanes some times over, and of
/// those that fill them once.
#[inline(always)]
fn partial_sums<S: Simd, const MOMENTS: bool>(
    simd: S,
    g: &[f32],
    x: &[f32],
    last: Option<&([f32; LANES], [f32; LANES])>,
    pivot: f32,
) -> [[f32; LANES]; 2] {
    let registers = const { LANES / S::F32_LANES };
    let (pivot, zero) = (simd.splat_f32s(pivot), simd.splat_f32s(0.0));
    let (mut first, mut second) = ([zero; LANES], [zero; LANES]);
    let mut add = |g: &[S::f32s], x: &[S::f32s]| {
        for i in 0..registers {
            let d = simd.sub_f32s(x[i], pivot);
            let factor = if MOMENTS { d } else { g[i] };
            first[i] = simd.add_f32s(first[i], factor);
            second[i] = simd.add_f32s(second[i], simd.mul_f32s(factor, d));
        }
    };
    let (g, x) = (S::as_simd_f32s(g).0, S::as_simd_f32s(x).0);
    for (g, x) in g.chunks_exact(registers).zip(x.chunks_exact(registers)) {
        add(g, x);
    }
    if let Some((g, x)) = last {
        add(S::as_simd_f32s(g).0, S::as_simd_f32s(x).0);
    }
    let mut partial = [[0.0; LANES]; 2];
    let [to_first, to_second] = &mut partial;
    let (to_first, to_second) = (S::as_mut_simd_f32s(to_first).0, S::as_mut_simd_f32s(to_second).0);
    to_first.copy_from_slice(&first[..registers]);
    to_second.copy_from_slice(&second[..registers]);
    partial
}

/// Two sums in every column of many rows.
#[derive(Debug)]
pub(super) struct ColumnSums {
    /// What is subtracted from x, by column.
    pub pivots: Vec<f32>,
    partial: [Vec<f32>; 2],
    /// The sums, by column, once they are [`finish`](Self::finish)ed.
    pub sums: [Vec<f64>; 2],
    rows: usize,
}

/// Rows that are summed in f32, as in a lane.
const DEPTH: usize = RUN / LANES;

impl ColumnSums {
    pub fn new(pivots: Vec<f32>) -> Self {
        let columns = pivots.len();
        let (partial, sums) = ([vec![0.0; columns], vec![0.0; columns]], [vec![0.0; columns], vec![0.0; columns]]);
        Self { pivots, partial, sums, rows: 0 }
    }

    /// Adds x − pivot and its square, column by column, for two rows together; the second may be shorter, or empty.
    #[inline(always)]
    pub fn add_moments<X: Element>(&mut self, [a, b]: [&[X]; 2]) {
        let (mut a_scratch, mut b_scratch) = ([0.0; RUN], [0.0; RUN]);
        let [first, second] = &mut self.partial;
        let columns = self.pivots.chunks(RUN).zip(first.chunks_mut(RUN)).zip(second.chunks_mut(RUN));
        let mut b = b.chunks(RUN);
        for (a, ((pivots, first), second)) in a.chunks(RUN).zip(columns) {
            let (a, b) = (as_f32(a, &mut a_scratch), as_f32(b.next().unwrap_or(&[]), &mut b_scratch));
            let (pairs, end) = (b.len().min(a.len()), a.len());
            let (pivots, first, second) = (&pivots[..end], &mut first[..end], &mut second[..end]);
            let sums = first.iter_mut().zip(second.iter_mut()).zip(pivots);
            for (((first, second), pivot), (a, b)) in sums.zip(a.iter().zip(&b[..pairs])) {
                let (d, e) = (a - pivot, b - pivot);
                *first += d + e;
                *second += d * d + e * e;
            }
            let sums = first[pairs..].iter_mut().zip(&mut second[pairs..]).zip(&pivots[pairs..]);
            for (((first, second), pivot), a) in sums.zip(&a[pairs..]) {
                let d = a - pivot;
                *first += d;
                *second += d * d;
            }
        }
        self.rows += 1;
        self.end_row();
    }

    /// Adds g and g·(x − pivot) in the columns from `column` on. [`end_row`](Self::end_row) follows the last of a row.
    #[inline(always)]
    pub fn add_products(&mut self, column: usize, g: &[f32], x: &[f32]) {
        let (n, [first, second]) = (x.len(), &mut self.partial);
        let columns = column..column + n;
        let (g, pivots) = (&g[..n], &self.pivots[columns.clone()]);
        let (first, second) = (&mut first[columns.clone()], &mut second[columns]);
        for i in 0..n {
            first[i] += g[i];
            second[i] += g[i] * (x[i] - pivots[i]);
        }
    }

    #[inline(always)]
    pub fn end_row(&mut self) {
        self.rows += 1;
        if self.rows >= DEPTH {
            self.finish();
        }
    }

    /// Takes the sums in f32 over into those in f64.
    #[inline(always)]
    pub fn finish(&mut self) {
        self.rows = 0;
        for (sums, partial) in self.sums.iter_mut().zip(&mut self.partial) {
            for (sum, partial) in sums.iter_mut().zip(partial) {
                *sum += f64::from(*partial);
                *partial = 0.0;
            }
        }
    }

    /// Begins anew, about the pivots that it has now.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.partial.iter_mut().for_each(|partial| partial.fill(0.0));
        self.sums.iter_mut().for_each(|sums| sums.fill(0.0));
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, Scalar, WithSimd};

    use super::*;

    struct Both<'a>(&'a [f32], &'a [f32]);

    impl WithSimd for Both<'_> {
        type Output = [[f64; 2]; 2];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let (mut moments, mut products) = (Sums::ZERO, Sums::ZERO);
            moments.add_moments(simd, self.1, 0.25);
            for (g, x) in self.0.chunks(RUN).zip(self.1.chunks(RUN)) {
                products.add_products(simd, g, x, 0.25);
            }
            [moments.totals(), products.totals()]
        }
    }

    #[test]
    fn sums_have_the_same_bits_with_the_widest_registers_and_with_none() {
        for length in [1, 15, 16, 31, 32, 33, 64, 511, 512, 513, 2000] {
            let x: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
            let g: Vec<f32> = (0..length).map(|i| (i as f32 * 0.91).cos()).collect();
            let (widest, none) = (Arch::new().dispatch(Both(&g, &x)), Both(&g, &x).with_simd(Scalar::new()));
            assert_eq!(widest, none, "{length} values");
            let exact = x.iter().fold(0.0, |sum, x| sum + (f64::from(*x) - 0.25).powi(2));
            // Sixteen additions in f32 and the rounding of each square, relative to a sum of positive terms.
            assert!((none[0][1] - exact).abs() <= exact * 17.0 * f64::from(f32::EPSILON), "{length} values");
        }
    }
}
