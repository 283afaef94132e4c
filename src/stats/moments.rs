//! The moments of one channel and their merge (Chan, Golub and LeVeque, 1979).

use super::normalization::inv_std;

/// Moments of the values of one channel: of a tile, of a rank, or of the group.
///
/// Merging is associative and commutative up to rounding, with [`Moments::EMPTY`] as its exact
/// identity.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Moments {
    /// Number of values.
    pub count: u64,
    /// Σx / count. 0 without values.
    pub mean: f64,
    /// Σ(x − mean)².
    pub m2: f64,
}

impl Moments {
    /// The moments of no value: the identity of [`merge`](Self::merge).
    pub const EMPTY: Self = Self { count: 0, mean: 0.0, m2: 0.0 };

    /// Moments from sums about a pivot: `sum` = Σ(x − pivot), `sum_squares` = Σ(x − pivot)².
    ///
    /// m2 = sum_squares − sum²/count. It is accurate if the pivot is near the mean. If rounding
    /// makes it negative, it becomes 0. A sum that is not finite makes the whole channel NaN.
    pub fn from_sums(count: u64, pivot: f64, sum: f64, sum_squares: f64) -> Self {
        if count == 0 {
            return Self::EMPTY;
        }
        if !(pivot.is_finite() && sum.is_finite() && sum_squares.is_finite()) {
            return Self::not_finite(count);
        }
        let offset = sum / count as f64;
        Self { count, mean: pivot + offset, m2: (sum_squares - sum * offset).max(0.0) }
    }

    /// Moments of `count` values of which at least one is NaN or infinite.
    pub fn not_finite(count: u64) -> Self {
        Self { count, mean: f64::NAN, m2: f64::NAN }
    }

    /// Moments of the values themselves, about the first one.
    pub fn from_values(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values = values.into_iter();
        let Some(pivot) = values.next() else { return Self::EMPTY };
        let (count, sum, sum_squares) = values
            .map(|x| x - pivot)
            .fold((1, 0.0, 0.0), |(count, sum, squares), d| (count + 1, sum + d, squares + d * d));
        Self::from_sums(count, pivot, sum, sum_squares)
    }

    /// Moments of the union of both sets of values. Welford's update is the case of one value in
    /// `other`.
    ///
    /// Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    /// variances" (1979), eq. 2.1: m2 = m2ₐ + m2ᵦ + δ²·nₐnᵦ/n with δ = meanᵦ − meanₐ.
    pub fn merge(self, other: Self) -> Self {
        if other.count == 0 {
            return self;
        }
        if self.count == 0 {
            return other;
        }
        let weights = Weights::of(self.count, other.count);
        let [mean, m2] = weights.merge([self.mean, self.m2], [other.mean, other.m2]);
        Self { count: weights.count, mean, m2 }
    }

    /// [`merge`](Self::merge) of many channels in place, as mean and m2. All channels of a side
    /// have its count.
    pub(super) fn merge_channels(
        [left_count, right_count]: [u64; 2],
        left: &mut [[f64; 2]],
        right: &[[f64; 2]],
    ) {
        let channels = left.iter_mut().zip(right);
        if right_count == 0 {
            return;
        }
        if left_count == 0 {
            return channels.for_each(|(left, right)| *left = *right);
        }
        let weights = Weights::of(left_count, right_count);
        channels.for_each(|(left, right)| *left = weights.merge(*left, *right));
    }

    /// m2 / count, the variance that normalizes. 0 without values.
    pub fn var_biased(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.m2 / self.count as f64 }
    }

    /// 1/√(var + eps) with the biased variance. 0 if var + eps is 0, so a constant channel gives y
    /// = bias.
    pub fn inv_std(&self, eps: f64) -> f64 {
        inv_std(self.var_biased(), eps)
    }

    /// m2 / (count − 1), the estimate for a larger population. NaN below two values.
    pub fn var_unbiased(&self) -> f64 {
        if self.count < 2 { f64::NAN } else { self.m2 / (self.count - 1) as f64 }
    }
}

/// The part of a merge that depends on the counts alone.
struct Weights {
    count: u64,
    /// Weight of the second mean, nᵦ/n.
    weight: f64,
    /// nₐnᵦ/n.
    of_square: f64,
}

impl Weights {
    fn of(left: u64, right: u64) -> Self {
        // Saturating, because a count that a peer invents must not wrap to a small one. No machine
        // holds 2⁶⁴ values.
        let count = left.saturating_add(right);
        let weight = right as f64 / count as f64;
        Self { count, weight, of_square: left as f64 * weight }
    }

    /// Mean and m2 of the union of both sets of values.
    fn merge(&self, left: [f64; 2], right: [f64; 2]) -> [f64; 2] {
        let delta = right[0] - left[0];
        [left[0] + delta * self.weight, left[1] + right[1] + delta * delta * self.of_square]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_merged_in_place_have_the_bits_of_one_after_the_other() {
        let values = |seed: u64| {
            (0..100u64).map(move |channel| {
                let unit = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / 3.0;
                [unit(channel * 2 + seed) - 1e14, unit(channel * 2 + 1 + seed)]
            })
        };
        let (left, right): (Vec<_>, Vec<_>) = (values(7).collect(), values(1000).collect());
        for counts in [[3, 5], [0, 5], [3, 0], [0, 0], [u64::MAX, 9], [1, 1 << 60]] {
            let mut merged = left.clone();
            Moments::merge_channels(counts, &mut merged, &right);
            for ((found, left), right) in merged.iter().zip(&left).zip(&right) {
                let of = |count, [mean, m2]: [f64; 2]| Moments { count, mean, m2 };
                let expected = of(counts[0], *left).merge(of(counts[1], *right));
                let bits = [expected.mean, expected.m2].map(f64::to_bits);
                assert_eq!(found.map(f64::to_bits), bits, "{counts:?}");
            }
        }
    }

    #[test]
    fn moments_of_four_numbers_are_those_computed_by_hand() {
        let stats = Moments::from_values([2.0, 4.0, 4.0, 6.0]);
        assert_eq!(stats, Moments { count: 4, mean: 4.0, m2: 8.0 });
        assert_eq!((stats.var_biased(), stats.var_unbiased()), (2.0, 8.0 / 3.0));
    }

    #[test]
    fn one_channel_that_is_not_finite_stays_so_through_every_merge() {
        let poisoned = Moments::from_sums(3, 1.0, f64::INFINITY, 1.0);
        let merged = Moments::from_values([1.0, 2.0]).merge(poisoned);
        assert!(merged.mean.is_nan() && merged.m2.is_nan());
        assert_eq!(merged.count, 5);
    }
}
