//! e⁻ᵃ for a of 0 and above.

/// e⁻ᵃ = scale·(1 + minus_one).
#[derive(Clone, Copy)]
pub(super) struct Exponential {
    /// A power of two; 0 where a is above 87.68, for what f32 has only subnormal numbers for.
    pub scale: f32,
    /// e⁻ʳ − 1 with |r| at most ln 2/2.
    pub minus_one: f32,
}

/// e⁻ᵃ for a = high + low, with low small beside 1: a = n·ln 2 + r, and 2⁻ⁿ by its bits.
///
/// The polynomial r + r²·q(r) of degree 6 is within 2⁻²⁶ of e⁻ʳ − 1 (least squares, with weights
/// moved until the largest errors were alike).
#[inline(always)]
pub(super) fn exponential(high: f32, low: f32) -> Exponential {
    // ln 2 = LN_2_HIGH + LN_2_LOW; the first has 15 digits, so that n·LN_2_HIGH is exact.
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    // Added to a number below 2²², it leaves the number rounded to an integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let a = if high < 88.0 { high } else { 88.0 };
    let rounded = a * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = ((n * LN_2_HIGH - a) + n * LN_2_LOW) - low;
    let q = 0.008_366_647 + r * 0.001_388_249_8;
    let q = 0.5 + r * (0.166_665_42 + r * (0.041_667_204 + r * q));
    let exponent = 127u32.wrapping_sub(rounded.to_bits().wrapping_sub(ROUND.to_bits()));
    Exponential { scale: f32::from_bits(exponent << 23), minus_one: r + (r * r) * q }
}

impl Exponential {
    /// e⁻ᵃ.
    #[inline(always)]
    pub fn value(self) -> f32 {
        self.scale + self.scale * self.minus_one
    }
}
