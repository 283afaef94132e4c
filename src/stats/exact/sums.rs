//! Sums of integers, and the statistics that they give.

use super::range::Grid;
use super::wide::{Wide, power};
use crate::stats::{GradientSums, Moments};

/// Two sums of integers over the values of one channel. They merge by addition, exactly, in any
/// order.
///
/// | of | first | second |
/// |---|---|---|
/// | x | Σq | Σq² |
/// | rounding errors of x, in steps of 2⁻²⁴ | Σr | Σ(2²⁵·q·r + r²) |
/// | gradients | Σw | Σq·w |
///
/// `STATISTICS` is true for sums of x, which update running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct IntegerSums<const STATISTICS: bool> {
    /// Number of values.
    pub count: u64,
    /// Both sums.
    pub sums: [i128; 2],
}

impl<const STATISTICS: bool> IntegerSums<STATISTICS> {
    /// The sums of no value: the identity of [`merge`](Self::merge).
    pub const EMPTY: Self = Self { count: 0, sums: [0; 2] };

    /// The sums over both sets of values.
    pub fn merge(self, other: Self) -> Self {
        // Wrapping, because a peer may send invented sums. Real values never overflow.
        let [first, second] = self.sums;
        let [more_first, more_second] = other.sums;
        let sums = [first.wrapping_add(more_first), second.wrapping_add(more_second)];
        Self { count: self.count.saturating_add(other.count), sums }
    }
}

/// Bits by which rounding errors are finer than the integers.
const FINER: u32 = 24;

impl IntegerSums<true> {
    /// N·Σq² − (Σq)², in units of the grid.
    fn spread(&self) -> Wide {
        let [first, second] = self.sums;
        let squares = Wide::product(second.unsigned_abs(), self.count.into());
        squares.minus(Wide::product(first.unsigned_abs(), first.unsigned_abs()))
    }

    /// Whether half of the range is beyond 32 deviations: N²·2⁵⁸ > 2¹⁰·(N·Σq² − (Σq)²). Then
    /// rounding errors may be visible in y. 2⁵⁸ is the square of half of the range, within a factor
    /// of four.
    pub(crate) fn is_wide(&self, grid: &Grid) -> bool {
        let count = u128::from(self.count);
        grid.exponent.is_some() && Wide::product(count, count).shifted(48) > self.spread()
    }

    /// The moments of the values, each rounded once: mean = p + 2ᵉ·S/N and m2 = 2²ᵉ·(N·Q − S²)/N
    /// with S = Σq + 2⁻²⁴·Σr and Q = Σq² + 2⁻⁴⁸·Σ(2²⁵·q·r + r²). `rests` are the sums of rounding
    /// errors, or 0.
    pub(crate) fn moments(&self, grid: &Grid, rests: [i128; 2]) -> Moments {
        let count = self.count;
        if count == 0 {
            return Moments::EMPTY;
        }
        if grid.pivot.is_nan() {
            return Moments::not_finite(count);
        }
        let Some(e) = grid.exponent else {
            return Moments { count, mean: grid.pivot.into(), m2: 0.0 };
        };
        let [first, second] = self.sums;
        let finer = FINER as i32;
        let sum = first.wrapping_shl(FINER).wrapping_add(rests[0]);
        let squares = Wide::of_signed(second).shifted(2 * FINER).plus(Wide::of_signed(rests[1]));
        let pivot = Wide::signed_product(grid.pivot_steps(e), count.into()).shifted(FINER);
        let mean = pivot.plus(Wide::of_signed(sum)).signed_ratio(count, e - finer);
        let m2 = spread_over(squares, sum, count).ratio(count, 2 * (e - finer));
        Moments { count, mean, m2 }
    }
}

/// N·Q − S². 0 if a peer's sums make it negative.
fn spread_over(squares: Wide, sum: i128, count: u64) -> Wide {
    let product = squares.times(count);
    let spread = product.minus(Wide::product(sum.unsigned_abs(), sum.unsigned_abs()));
    if spread.is_negative() { Wide::of_signed(0) } else { spread }
}

impl IntegerSums<false> {
    /// Σg and Σ g·(x − mean), from the grids of x and of g.
    pub(crate) fn gradient_sums(&self, x: &Grid, g: &Grid, mean: f64) -> GradientSums {
        if self.count == 0 {
            return GradientSums::EMPTY;
        }
        if g.pivot.is_nan() {
            return GradientSums { sum_dy: f64::NAN, sum_dy_xmu: f64::NAN };
        }
        let [first, second] = self.sums;
        let sum_dy = g.exponent.map_or(0.0, |f| first as f64 * power(f));
        let about_pivot = match (x.exponent, g.exponent) {
            // One power at a time, because f64 may not hold their product.
            (Some(e), Some(f)) => second as f64 * power(e) * power(f),
            _ => 0.0,
        };
        GradientSums { sum_dy, sum_dy_xmu: about_pivot + (f64::from(x.pivot) - mean) * sum_dy }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::super::range::ValueRange;
    use super::*;

    /// Moments of values by the definition, one value after the other.
    fn moments(values: &[f32]) -> Moments {
        let range = values.iter().fold(ValueRange::EMPTY, |range, &x| {
            range.merge(ValueRange { count: 1, low: x, high: x })
        });
        let grid = range.grid();
        let mut sums = IntegerSums::<true>::EMPTY;
        let mut rests = [0; 2];
        for &x in values {
            let [q, r] = grid.params().integers(x).map(i128::from);
            sums = sums.merge(IntegerSums { count: 1, sums: [q, q * q] });
            rests[0] += r;
            rests[1] += (q << 25) * r + r * r;
        }
        let is_wide = sums.is_wide(&grid);
        sums.moments(&grid, if is_wide { rests } else { [0; 2] })
    }

    #[test]
    fn moments_of_four_numbers_are_those_computed_by_hand() {
        assert_eq!(moments(&[2.0, 4.0, 4.0, 6.0]), Moments { count: 4, mean: 4.0, m2: 8.0 });
        assert_eq!(moments(&[1e6; 3]), Moments { count: 3, mean: 1e6, m2: 0.0 });
        assert_eq!(moments(&[]), Moments::EMPTY);
        assert!(moments(&[1.0, f32::NAN]).mean.is_nan());
    }

    #[test]
    fn moments_of_any_magnitude_are_those_of_f64_and_of_any_order() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for (scale, mean) in
            [(1.0, 0.0), (1.0, 1e6), (1e-2, 1e4), (1e30, 0.0), (1e-36, 0.0), (1e-34, 1e-33)]
        {
            let mut values: Vec<f32> = (0..1000)
                .map(|_| (f64::from(random.next_u32()) / 2f64.powi(32) - 0.5) * scale + mean)
                .map(|x| x as f32)
                .collect();
            let found = moments(&values);
            let wide: Vec<f64> = values.iter().copied().map(f64::from).collect();
            let average = wide.iter().sum::<f64>() / 1000.0;
            let m2: f64 = wide.iter().map(|x| (x - average).powi(2)).sum();
            assert!((found.mean - average).abs() < 1e-9 * scale, "{scale:e} about {mean:e}");
            assert!((found.m2 / m2 - 1.0).abs() < 1e-7, "{scale:e} about {mean:e}");
            values.reverse();
            values.rotate_left(317);
            assert_eq!(moments(&values), found, "{scale:e} about {mean:e}");
        }
    }

    #[test]
    fn rare_outliers_beside_a_few_exact_numbers_lose_nothing() {
        // 1.247 either way, and two values a thousand deviations away.
        let mut values = [1.247f32, -1.247].repeat(50_000);
        values.extend([1370.0, -1370.0]);
        let found = moments(&values);
        let square = |x: f32| f64::from(x) * f64::from(x);
        let m2 = 100_000.0 * square(1.247) + 2.0 * square(1370.0);
        assert!((found.m2 / m2 - 1.0).abs() < 1e-12, "{:e}, expected {m2:e}", found.m2);
    }

    #[test]
    fn a_mean_is_rounded_once_from_the_exact_sum() {
        // 2²⁴ ones and one 1 + 2⁻²³: the mean is 1 + 2⁻²³/(2²⁴ + 1).
        let range = ValueRange { count: 2, low: 1.0, high: 1.0 + f32::EPSILON };
        let grid = range.grid();
        let [low, high] = [1.0, 1.0 + f32::EPSILON].map(|x| grid.params().integers(x)[0]);
        let count = (1 << 24) + 1;
        let first = i128::from(low) * (1 << 24) + i128::from(high);
        let second = i128::from(low).pow(2) * (1 << 24) + i128::from(high).pow(2);
        let sums = IntegerSums::<true> { count, sums: [first, second] };
        let found = sums.moments(&grid, [0; 2]);
        assert_eq!(found.mean, 1.0 + f64::from(f32::EPSILON) / count as f64);
    }

    #[test]
    fn sums_that_a_peer_has_made_up_give_numbers_and_no_panic() {
        for sums in [[i128::MIN; 2], [i128::MAX; 2], [i128::MAX, 0], [0, i128::MIN]] {
            let range = ValueRange { count: 2, low: -1.0, high: 3.0 };
            for count in [1, u64::MAX] {
                let made_up = IntegerSums::<true> { count, sums };
                let _ = made_up.is_wide(&range.grid());
                let merged = made_up.merge(made_up).moments(&range.grid(), sums);
                assert!(merged.m2 >= 0.0, "{merged:?}");
            }
        }
    }
}
