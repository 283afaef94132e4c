//! Sums of runs of values in vector registers.
//!
//! The order of additions is fixed here and not by the width of the registers: [`LANES`] partial
//! sums in f32, no deeper than [`DEPTH`] additions, then f64. So results have the same bits on
//! every instruction set.

mod columns;

use pulp::Simd;

pub(super) use columns::{ColumnSums, PatchSums, ROWS};

/// Partial sums side by side: two of the widest registers, so that an addition need not wait for
/// the one before.
const LANES: usize = 32;
/// Additions in f32, so that their roundings stay far below those of the result.
pub(super) const DEPTH: usize = 16;
/// Values that are summed in f32 at once.
pub(super) const RUN: usize = DEPTH * LANES;

/// Two sums over many values. What changes most begins a cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Sums {
    partial: [[f32; LANES]; 2],
    /// Additions that are in `partial`.
    depth: usize,
    sums: [[f64; LANES]; 2],
}

/// The index of each lane: what tells those within a run from those behind its end.
const PLACES: [u32; LANES] = {
    let mut lanes = [0; LANES];
    let mut i = 0;
    while i < LANES {
        lanes[i] = i as u32;
        i += 1;
    }
    lanes
};

impl Sums {
    pub const ZERO: Self = Self { partial: [[0.0; LANES]; 2], depth: 0, sums: [[0.0; LANES]; 2] };

    /// Both sums over all lanes.
    #[inline(always)]
    pub fn totals(mut self) -> [f64; 2] {
        self.fold();
        let mut totals = [0.0; 2];
        for (total, lanes) in totals.iter_mut().zip(&mut self.sums) {
            let mut half = LANES / 2;
            while half > 0 {
                for i in 0..half {
                    lanes[i] += lanes[i + half];
                }
                half /= 2;
            }
            *total = lanes[0];
        }
        totals
    }

    /// Adds Σ(x − pivot) and Σ(x − pivot)² over the first `n` values of x. It is fastest where as
    /// many more follow as a register holds.
    #[inline(always)]
    pub fn add_moments<S: Simd>(&mut self, simd: S, x: &[f32], n: usize, pivot: f32) {
        self.add::<S, true>(simd, x, x, n, pivot);
    }

    /// Adds Σg and Σ g·(x − pivot) in the same way.
    #[inline(always)]
    pub fn add_products<S: Simd>(&mut self, simd: S, g: &[f32], x: &[f32], n: usize, pivot: f32) {
        self.add::<S, false>(simd, g, x, n, pivot);
    }

    #[inline(always)]
    fn add<S: Simd, const MOMENTS: bool>(
        &mut self,
        simd: S,
        g: &[f32],
        x: &[f32],
        n: usize,
        pivot: f32,
    ) {
        let (mut g, mut x, mut n) = (g, x, n);
        while n > RUN {
            self.add_run::<S, MOMENTS>(simd, g, x, RUN, pivot);
            (g, x, n) = (&g[RUN..], &x[RUN..], n - RUN);
        }
        self.add_run::<S, MOMENTS>(simd, g, x, n, pivot);
    }

    /// The same for at most [`RUN`] values.
    #[inline(always)]
    fn add_run<S: Simd, const MOMENTS: bool>(
        &mut self,
        simd: S,
        g: &[f32],
        x: &[f32],
        n: usize,
        pivot: f32,
    ) {
        let registers = const { LANES / S::F32_LANES };
        let depth = n.div_ceil(LANES);
        if self.depth + depth > DEPTH {
            self.fold();
        }
        self.depth += depth;
        let (pivots, zero) = (simd.splat_f32s(pivot), simd.splat_f32s(0.0));
        let (mut first, mut second) = ([zero; LANES], [zero; LANES]);
        let [to_first, to_second] = &mut self.partial;
        let (to_first, to_second) =
            (S::as_mut_simd_f32s(to_first).0, S::as_mut_simd_f32s(to_second).0);
        first[..registers].copy_from_slice(to_first);
        second[..registers].copy_from_slice(to_second);

        let (whole, rest) = (n / LANES, n % LANES);
        let lanes = |values: &[f32], from: usize| {
            S::as_simd_f32s(&values[from * LANES..]).0.len() >= registers
        };
        let (gs, xs) = (
            S::as_simd_f32s(g).0.chunks_exact(registers),
            S::as_simd_f32s(x).0.chunks_exact(registers),
        );
        for (g, x) in gs.zip(xs).take(whole) {
            for i in 0..registers {
                let d = simd.sub_f32s(x[i], pivots);
                let factor = if MOMENTS { d } else { g[i] };
                first[i] = simd.add_f32s(first[i], factor);
                second[i] = simd.add_f32s(second[i], simd.mul_f32s(factor, d));
            }
        }
        if rest > 0 {
            let (mut last_g, mut last_x);
            let (g, x) = if lanes(g, whole) && lanes(x, whole) {
                (&g[whole * LANES..], &x[whole * LANES..])
            } else {
                (last_g, last_x) = ([0.0; LANES], [0.0; LANES]);
                last_g[..rest].copy_from_slice(&g[whole * LANES..n]);
                last_x[..rest].copy_from_slice(&x[whole * LANES..n]);
                (last_g.as_slice(), last_x.as_slice())
            };
            let (g, x) = (S::as_simd_f32s(g).0, S::as_simd_f32s(x).0);
            let filled = rest.div_ceil(S::F32_LANES);
            let (places, rest) = (S::as_simd_u32s(&PLACES).0, simd.splat_u32s(rest as u32));
            for i in 0..registers.min(filled) {
                let within = simd.less_than_u32s(places[i], rest);
                let d = simd.select_f32s(within, simd.sub_f32s(x[i], pivots), zero);
                let factor = if MOMENTS { d } else { simd.select_f32s(within, g[i], zero) };
                first[i] = simd.add_f32s(first[i], factor);
                second[i] = simd.add_f32s(second[i], simd.mul_f32s(factor, d));
            }
        }
        to_first.copy_from_slice(&first[..registers]);
        to_second.copy_from_slice(&second[..registers]);
    }

    /// Takes the sums in f32 over into those in f64.
    #[inline(always)]
    fn fold(&mut self) {
        self.depth = 0;
        for (sums, partial) in self.sums.iter_mut().zip(&mut self.partial) {
            for (sum, partial) in sums.iter_mut().zip(partial) {
                *sum += f64::from(*partial);
                *partial = 0.0;
            }
        }
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
            for start in (0..self.1.len()).step_by(RUN) {
                // With what follows, and without.
                let (n, g, x) = (RUN.min(self.1.len() - start), &self.0[start..], &self.1[start..]);
                moments.add_moments(simd, x, n, 0.25);
                products.add_products(simd, &g[..n], &x[..n], n, 0.25);
            }
            let mut at_once = Sums::ZERO;
            at_once.add_moments(simd, self.1, self.1.len(), 0.25);
            let moments = moments.totals();
            assert_eq!(at_once.totals(), moments, "{} values at once, and in runs", self.1.len());
            [moments, products.totals()]
        }
    }

    #[test]
    fn sums_have_the_same_bits_with_the_widest_registers_and_with_none() {
        for length in [1, 15, 16, 31, 32, 33, 64, 511, 512, 513, 2000] {
            let x: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
            let g: Vec<f32> = (0..length).map(|i| (i as f32 * 0.91).cos()).collect();
            let (widest, none) =
                (Arch::new().dispatch(Both(&g, &x)), Both(&g, &x).with_simd(Scalar::new()));
            assert_eq!(widest, none, "{length} values");
            let exact = x.iter().fold(0.0, |sum, x| sum + (f64::from(*x) - 0.25).powi(2));
            // Sixteen additions in f32 and the rounding of each square, relative to a sum of
            // positive terms.
            assert!(
                (none[0][1] - exact).abs() <= exact * 17.0 * f64::from(f32::EPSILON),
                "{length} values"
            );
        }
    }

    struct Behind<'a>(&'a [f32], usize);

    impl WithSimd for Behind<'_> {
        type Output = [f64; 2];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let mut sums = Sums::ZERO;
            sums.add_products(simd, self.0, self.0, self.1, 0.25);
            sums.totals()
        }
    }

    #[test]
    fn what_follows_a_run_has_no_part_in_its_sums() {
        for n in [1, 17, 31, 33, 49, 196, 511] {
            let mut x: Vec<f32> = (0..n + 2 * LANES).map(|i| (i as f32 * 0.37).sin()).collect();
            x[n..].fill(f32::NAN);
            let alone = Arch::new().dispatch(Behind(&x[..n], n));
            assert!(alone.iter().all(|sum| sum.is_finite()), "{n} values");
            assert_eq!(Arch::new().dispatch(Behind(&x, n)), alone, "{n} values");
            assert_eq!(Behind(&x, n).with_simd(Scalar::new()), alone, "{n} values");
        }
    }

    struct Columns<'a>(&'a [Vec<f32>]);

    impl WithSimd for Columns<'_> {
        type Output = [Vec<f64>; 2];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let rows: Vec<&[f32]> = self.0.iter().map(Vec::as_slice).collect();
            let [at_once, one_by_one] = [ROWS, 1].map(|at_once| {
                let mut sums = ColumnSums::new(vec![0.25; rows[0].len()]);
                let mut patch = PatchSums::new(0, rows[0].len());
                rows.chunks(at_once).for_each(|rows| sums.add_moments(simd, &mut patch, rows));
                sums.take(&patch);
                sums.sums
            });
            assert_eq!(at_once, one_by_one, "rows in fours and one by one");
            at_once
        }
    }

    #[test]
    fn sums_of_columns_are_those_of_each_column_from_above() {
        for (count, width) in [(1, 5), (3, 64), (4, 37), (15, 100), (16, 257)] {
            let row = |r: usize| {
                (0..width).map(|i| ((r * width + i) as f32 * 0.37).sin()).collect::<Vec<f32>>()
            };
            let rows: Vec<Vec<f32>> = (0..count).map(row).collect();
            let found = Arch::new().dispatch(Columns(&rows));
            assert_eq!(Columns(&rows).with_simd(Scalar::new()), found);
            for column in 0..width {
                let deviations = rows.iter().map(|row| row[column] - 0.25);
                let [first, second] = deviations.fold([0.0; 2], |[a, b], d| [a + d, b + d * d]);
                let found = [found[0][column], found[1][column]];
                assert_eq!(
                    found,
                    [f64::from(first), f64::from(second)],
                    "column {column} of {count} rows of {width}"
                );
            }
        }
    }
}
