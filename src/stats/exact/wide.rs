//! 256-bit integers. They hold products of sums exactly until one division into an f64.

/// An unsigned integer of 256 bits; read in two's complement where a name says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wide {
    high: u128,
    low: u128,
}

const HALF: u128 = u64::MAX as u128;

impl Wide {
    const ZERO: Self = Self { high: 0, low: 0 };

    /// a·b.
    pub fn product(a: u128, b: u128) -> Self {
        let [a_low, a_high] = [a & HALF, a >> 64];
        let [b_low, b_high] = [b & HALF, b >> 64];
        let low = a_low * b_low;
        let middle = a_low * b_high + (low >> 64);
        let other = a_high * b_low + (middle & HALF);
        Self {
            high: a_high * b_high + (middle >> 64) + (other >> 64),
            low: (other << 64) | (low & HALF),
        }
    }

    /// A signed integer in two's complement.
    pub fn of_signed(value: i128) -> Self {
        let magnitude = Self { high: 0, low: value.unsigned_abs() };
        if value < 0 { magnitude.negated() } else { magnitude }
    }

    /// a·b in two's complement.
    pub fn signed_product(a: i128, b: u128) -> Self {
        let magnitude = Self::product(a.unsigned_abs(), b);
        if a < 0 { magnitude.negated() } else { magnitude }
    }

    /// a + b modulo 2²⁵⁶.
    pub fn plus(self, other: Self) -> Self {
        let (low, carry) = self.low.overflowing_add(other.low);
        Self { high: self.high.wrapping_add(other.high).wrapping_add(carry.into()), low }
    }

    /// a·b modulo 2²⁵⁶.
    pub fn times(self, by: u64) -> Self {
        let high = self.high.wrapping_mul(by.into());
        Self::product(self.low, by.into()).plus(Self { high, low: 0 })
    }

    /// −a in two's complement.
    pub fn negated(self) -> Self {
        Self { high: !self.high, low: !self.low }.plus(Self { high: 0, low: 1 })
    }

    /// a − b in two's complement.
    pub fn minus(self, other: Self) -> Self {
        self.plus(other.negated())
    }

    /// Whether it is below 0 in two's complement.
    pub fn is_negative(self) -> bool {
        self.high >> 127 == 1
    }

    /// a·2^bits, where `bits` is below 256.
    pub fn shifted(self, bits: u32) -> Self {
        match bits {
            0 => self,
            1..128 => Self {
                high: (self.high << bits) | (self.low >> (128 - bits)),
                low: self.low << bits,
            },
            _ => Self { high: self.low << (bits - 128), low: 0 },
        }
    }

    fn leading_zeros(self) -> u32 {
        if self.high == 0 { 128 + self.low.leading_zeros() } else { self.high.leading_zeros() }
    }

    /// a/`by`·2^`exponent`, rounded once to the nearest f64, ties to even. `by` is not 0, and the
    /// result within the range of normal f64.
    pub fn ratio(self, by: u64, exponent: i32) -> f64 {
        if self == Self::ZERO {
            return 0.0;
        }
        // Shifted up as far as possible, the upper half alone has a quotient of 64 bits and more.
        // Its remainder and the lower half only decide whether the ratio is above the quotient.
        let up = self.leading_zeros();
        let Self { high, low } = self.shifted(up);
        let quotient = high / u128::from(by);
        let is_above = high - quotient * u128::from(by) != 0 || low != 0;
        let more = quotient.leading_zeros();
        let quotient = quotient << more;
        let top = (quotient >> 64) as u64;
        let is_inexact = is_above || quotient & HALF != 0;
        let cut = top & 0x7ff;
        let kept = top >> 11;
        let is_up = cut > 0x400 || (cut == 0x400 && (is_inexact || kept % 2 == 1));
        let rounded = (kept + u64::from(is_up)) as f64;
        rounded * power(11 + 192 - more as i32 - up as i32 + exponent)
    }

    /// The same for two's complement.
    pub fn signed_ratio(self, by: u64, exponent: i32) -> f64 {
        if self.is_negative() {
            -self.negated().ratio(by, exponent)
        } else {
            self.ratio(by, exponent)
        }
    }
}

/// 2^exponent, from the smallest normal f64 to the largest power of two.
pub(super) fn power(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent.clamp(-1022, 1023)) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_differences_are_those_computed_by_hand() {
        let most = u128::MAX;
        assert_eq!(Wide::product(most, most), Wide { high: most - 1, low: 1 });
        assert_eq!(Wide::product(3 << 100, 5 << 90), Wide { high: 15 << 62, low: 0 });
        let difference = Wide::product(most, 2).minus(Wide { high: 1, low: most });
        assert_eq!(difference, Wide::of_signed(-1));
        assert_eq!(Wide::signed_product(-7, 6), Wide::of_signed(-42));
    }

    #[test]
    fn a_ratio_rounds_once_to_even() {
        let ratio = |a, by, exponent| Wide { high: 0, low: a }.ratio(by, exponent);
        assert_eq!(ratio(1, 3, 0), 1.0 / 3.0);
        assert_eq!(ratio(7, 1, -3), 0.875);
        assert_eq!(ratio((1 << 53) + 1, 1, 0), 9_007_199_254_740_992.0);
        assert_eq!(ratio((1 << 53) + 3, 1, 0), 9_007_199_254_740_996.0);
        // Just above half way, by a remainder that only the division shows.
        assert_eq!(ratio((1 << 54) + 2, 2, 0), 9_007_199_254_740_992.0);
        assert_eq!(ratio(3 * ((1 << 53) + 1) + 1, 3, 0), 9_007_199_254_740_994.0);
        assert_eq!(Wide::of_signed(-5).signed_ratio(2, 1), -5.0);
        for (a, by) in [(u128::MAX, 1), (u128::MAX, u64::MAX), (1, u64::MAX), (12_345, 6_789)] {
            let expected = a as f64 / by as f64;
            assert!((ratio(a, by, 0) / expected - 1.0).abs() < 1e-15, "{a}/{by}");
        }
    }
}
