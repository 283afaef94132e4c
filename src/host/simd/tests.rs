//! Sums in registers: the bits are those of no vector instructions, and of every value once.

use approx::abs_diff_eq;
use pulp::{Arch, Scalar, WithSimd};

use super::*;

struct Both<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Both<'_> {
    type Output = [[f64; 2]; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let mut moments = Sums::ZERO;
        let mut products = Sums::ZERO;
        for start in (0..self.1.len()).step_by(RUN) {
            // With what follows, and without.
            let n = RUN.min(self.1.len() - start);
            let g = &self.0[start..];
            let x = &self.1[start..];
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
        let widest = Arch::new().dispatch(Both(&g, &x));
        let none = Both(&g, &x).with_simd(Scalar::new());
        assert_eq!(widest, none, "{length} values");
        let exact = x.iter().fold(0.0, |sum, x| sum + (f64::from(*x) - 0.25).powi(2));
        // Sixteen additions in f32 and the rounding of each square, relative to a sum of
        // positive terms.
        let allowed = exact * 17.0 * f64::from(f32::EPSILON);
        assert!(abs_diff_eq!(none[0][1], exact, epsilon = allowed), "{length} values");
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
            let moments = sums.sums.clone();
            sums.clear();
            let mut patch = PatchSums::new(0, rows[0].len());
            let g: Vec<&[f32]> = rows.iter().rev().copied().collect();
            for (g, x) in g.chunks(at_once).zip(rows.chunks(at_once)) {
                sums.add_products(simd, &mut patch, g, x);
            }
            sums.take(&patch);
            (moments, sums.sums)
        });
        assert_eq!(at_once, one_by_one, "rows in fours and one by one");
        let (at_once, _) = at_once;
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
