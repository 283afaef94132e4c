//! The check of the device's own conversion to f16. WGSL leaves its rounding open: some devices
//! truncate, and others flush subnormals.

use half::f16;

use super::halves;

/// Four results for each f16, two to a word.
pub(super) const ANSWER_WORDS: usize = 2 * halves::COUNT;

/// The f32 of every f16, and the numbers halfway to the next one: away from 0, and beyond the
/// largest one, whose next would be 2¹⁶. Behind infinity comes the largest f32, and a NaN stays
/// one.
pub(super) fn inputs() -> [Vec<u32>; 2] {
    let halves = || 0..=u16::MAX;
    let exact = halves().map(|half| f16::from_bits(half).to_f32().to_bits()).collect();
    [exact, halves().map(halfway).collect()]
}

fn halfway(half: u16) -> u32 {
    let value = f16::from_bits(half);
    if value.is_nan() {
        return value.to_f32().to_bits();
    }
    if value.is_infinite() {
        return f32::MAX.copysign(value.to_f32()).to_bits();
    }
    let own = value.to_f32();
    let next = f16::from_bits(half + 1);
    let next = if next.is_infinite() { 65_536.0f32.copysign(own) } else { next.to_f32() };
    (0.5 * (own + next)).to_bits()
}

/// Whether every value was rounded to the nearest f16, ties to even. A NaN may become any NaN.
pub(super) fn is_to_nearest_even(answer: &[u32]) -> bool {
    let [exact, halfway] = inputs();
    let values = exact.into_iter().zip(halfway);
    let values = values.flat_map(|(exact, tie)| [exact, tie, tie - 1, tie + 1]);
    let results = answer.iter().flat_map(|word| [*word as u16, (*word >> 16) as u16]);
    values.zip(results).all(|(value, found)| {
        let expected = f16::from_f32(f32::from_bits(value));
        found == expected.to_bits() || (expected.is_nan() && f16::from_bits(found).is_nan())
    })
}
