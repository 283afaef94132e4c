//! The range of a channel's values, and the grid of integers that it gives.

use super::wide::power;

/// The smallest and the largest value of a channel: of a tile, of a rank, or of the group.
///
/// Merging is exact, in any order. The range of gradients is symmetric: −a to a, with the largest
/// magnitude a.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ValueRange {
    /// Number of values.
    pub count: u64,
    /// The smallest value. Infinity without values, NaN if one is not finite.
    pub low: f32,
    /// The largest value. Minus infinity without values, NaN if one is not finite.
    pub high: f32,
}

impl ValueRange {
    /// The range of no value: the identity of [`merge`](Self::merge).
    pub const EMPTY: Self = Self { count: 0, low: f32::INFINITY, high: f32::NEG_INFINITY };

    /// The range of `count` values, at least one of which is NaN or infinite.
    pub fn not_finite(count: u64) -> Self {
        Self { count, low: f32::NAN, high: f32::NAN }
    }

    /// Whether all values are finite.
    pub fn is_finite(&self) -> bool {
        self.count == 0 || (self.low.is_finite() && self.high.is_finite())
    }

    /// The range of both sets of values.
    pub fn merge(self, other: Self) -> Self {
        let count = self.count.saturating_add(other.count);
        if !(self.is_finite() && other.is_finite()) {
            return Self::not_finite(count);
        }
        // Adding 0 gives zero one sign, in either order.
        let low = self.low.min(other.low) + 0.0;
        let high = self.high.max(other.high) + 0.0;
        Self { count, low, high }
    }

    /// The integers that the values become.
    pub(crate) fn grid(&self) -> Grid {
        if self.count == 0 {
            return Grid::CONSTANT;
        }
        if !self.is_finite() {
            return Grid { pivot: f32::NAN, ..Grid::CONSTANT };
        }
        // As f32 rounds the sum of the halves, and no half is subnormal.
        let pivot = (f64::from(self.low) * 0.5 + f64::from(self.high) * 0.5) as f32;
        let half = (self.high - pivot).max(pivot - self.low);
        if half > 0.0 {
            Grid { pivot, exponent: Some(floor_log2(half) - BITS + 1) }
        } else {
            Grid { pivot, exponent: None }
        }
    }
}

/// Bits of an integer without its sign. |q| ≤ 2²⁹ − 32, because half of a range has 24 digits.
const BITS: i32 = 29;

/// Steps of a rounding error per step of the integers.
#[cfg(test)]
const FINER: f32 = (1 << 24) as f32;

/// If half of a range has a smaller exponent, f32 cannot hold 2⁻ᵉ. Then values are multiplied by
/// 2⁶⁴ first.
const TINY: i32 = -98;

/// The integers of a channel's values: q = round((x − pivot)·2⁻ᵉ), |q| at most 2²⁹ − 32.
///
/// Every device computes t = x·unit·scale + offset, q = round(t) to even. Scaling by a power of two
/// is exact, so t is the f32 difference x − pivot, scaled, whether or not a compiler fuses the
/// product with the sum.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Grid {
    /// The middle of the range. NaN if a value is not finite.
    pub pivot: f32,
    /// e. `None` if all values are the pivot or one is not finite. All integers are 0 then.
    pub exponent: Option<i32>,
}

/// A grid as kernels take it: t = x·unit·scale + offset.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct GridParams {
    /// 2⁻ᵉ/unit, or 0 if all integers are 0.
    pub scale: f32,
    /// −pivot·2⁻ᵉ, or 0 if all integers are 0.
    pub offset: f32,
    /// 1, or 2⁶⁴ for ranges below 2⁻⁹⁸.
    pub unit: f32,
    /// 0 where a kernel may leave out the channel and those beside it. The host leaves out none.
    pub mark: u32,
}

impl GridParams {
    /// All integers are 0.
    pub const ZERO: Self = Self { scale: 0.0, offset: 0.0, unit: 1.0, mark: 1 };

    /// The definition, for tests: q = round(t), and the rounding error r = round((t − q)·2²⁴).
    #[cfg(test)]
    pub fn integers(&self, x: f32) -> [i32; 2] {
        let t = x * self.unit * self.scale + self.offset;
        let q = t.round_ties_even();
        [q as i32, ((t - q) * FINER).round_ties_even() as i32]
    }
}

impl Grid {
    /// The grid of no value, or of the value 0 alone.
    pub const CONSTANT: Self = Self { pivot: 0.0, exponent: None };

    /// The grid as kernels take it.
    pub fn params(&self) -> GridParams {
        let Some(e) = self.exponent else { return GridParams::ZERO };
        let is_tiny = e + BITS - 1 < TINY;
        let unit = if is_tiny { power(64) } else { 1.0 };
        let scale = power(-e) / unit;
        let offset = -f64::from(self.pivot) * power(-e);
        GridParams { scale: scale as f32, offset: offset as f32, unit: unit as f32, mark: 1 }
    }

    /// pivot·2⁻ᵉ, an integer: half of a range is at least 2⁻²⁶ of what a pivot rounds to.
    pub fn pivot_steps(&self, e: i32) -> i128 {
        (f64::from(self.pivot) * power(-e)) as i128
    }
}

/// ⌊log₂ x⌋ of x above 0, subnormal numbers included.
fn floor_log2(x: f32) -> i32 {
    (f64::from(x).to_bits() >> 52) as i32 - 1023
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn range(low: f32, high: f32) -> ValueRange {
        ValueRange { count: 2, low, high }
    }

    #[test]
    fn the_ends_of_every_range_become_integers_of_29_bits_and_the_pivot_is_one_too() {
        let mut bits = ChaCha8Rng::seed_from_u64(1);
        let mut random = || f32::from_bits(bits.next_u32());
        let mut checked = 0;
        while checked < 200_000 {
            let mut ends = [random(), random()];
            if checked % 3 == 0 {
                // Neighbours, whose range is a few steps of a f32.
                ends[1] = f32::from_bits(ends[0].to_bits() ^ (checked as u32 % 7));
            }
            if ends.iter().any(|end| !end.is_finite()) {
                continue;
            }
            checked += 1;
            let [low, high] = [ends[0].min(ends[1]) + 0.0, ends[0].max(ends[1]) + 0.0];
            let grid = range(low, high).grid();
            let Some(e) = grid.exponent else {
                assert_eq!(low, high);
                continue;
            };
            let GridParams { scale, offset, unit, .. } = grid.params();
            for x in [low, high, grid.pivot] {
                let t = x * unit * scale + offset;
                assert!(t.abs() <= 2f32.powi(29) - 32.0, "{low:e} to {high:e}: {t}");
                let exact = (f64::from(x) - f64::from(grid.pivot)) * power(-e);
                let is_near = (f64::from(t) - exact).abs() <= 2f64.powi(-24) * exact.abs();
                assert!(is_near, "{low:e} to {high:e} at {x:e}: {t}, expected {exact}");
            }
            let steps = f64::from(grid.pivot) * power(-e);
            assert_eq!(steps, steps.trunc(), "{low:e} to {high:e}");
        }
    }

    #[test]
    fn merging_has_no_order_and_zero_has_one_sign() {
        let [a, b] = [range(-0.0, 2.0), range(0.0, 1.0)];
        for merged in [a.merge(b), b.merge(a), ValueRange::EMPTY.merge(a).merge(b)] {
            assert_eq!(merged.low.to_bits(), 0);
            assert_eq!((merged.count, merged.high), (4, 2.0));
        }
        assert!(!a.merge(ValueRange::not_finite(1)).is_finite());
        assert_eq!(ValueRange::EMPTY.merge(ValueRange::EMPTY), ValueRange::EMPTY);
        assert_eq!(ValueRange::EMPTY.grid(), Grid::CONSTANT);
        assert!(ValueRange::not_finite(3).grid().pivot.is_nan());
    }
}
