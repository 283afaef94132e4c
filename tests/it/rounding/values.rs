//! Bit patterns of f32 at which rounding to 16 bits can go wrong.

use half::{bf16, f16};

use crate::common::Random;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum To {
    F16,
    BF16,
}

impl To {
    pub const ALL: [Self; 2] = [Self::F16, Self::BF16];

    /// The f32 with the value of a pattern.
    fn value(self, half: u16) -> f32 {
        match self {
            Self::F16 => f16::from_bits(half).to_f32(),
            Self::BF16 => bf16::from_bits(half).to_f32(),
        }
    }

    /// The pattern of positive infinity.
    fn infinity(self) -> u16 {
        match self {
            Self::F16 => f16::INFINITY.to_bits(),
            Self::BF16 => bf16::INFINITY.to_bits(),
        }
    }
}

/// All 65,536 patterns of 16 bits, two to a word.
pub fn every_half() -> Vec<u32> {
    (0..1 << 15).map(|word: u32| (2 * word) | (2 * word + 1) << 16).collect()
}

/// Every value of the type, NaN included, and the f32 on either side of each.
pub fn exact_and_neighbours(to: To) -> Vec<u32> {
    let around = |half: u16| {
        let bits = to.value(half).to_bits();
        [bits.wrapping_sub(1), bits, bits.wrapping_add(1)]
    };
    (0..=u16::MAX).flat_map(around).collect()
}

/// Halfway between any two neighbours, the largest finite value and what would follow it included,
/// and the f32 on either side of that.
pub fn ties(to: To) -> Vec<u32> {
    let mut values = Vec::new();
    for half in 0..to.infinity() {
        // Half of the distance from the last neighbour below; behind the largest value the distance
        // stays the same.
        let low = f64::from(to.value(half));
        let high = f64::from(to.value(half + 1));
        let step = if high.is_finite() { high - low } else { low - f64::from(to.value(half - 1)) };
        let tie = (low + step / 2.0) as f32;
        assert_eq!(f64::from(tie), low + step / 2.0, "an f32 holds every tie");
        for sign in [0, 0x8000_0000] {
            values.extend(
                [tie.to_bits() - 1, tie.to_bits(), tie.to_bits() + 1].map(|bits| bits | sign),
            );
        }
    }
    values
}

/// Limits, infinities, NaN of many payloads, and the smallest f32.
pub fn special() -> Vec<u32> {
    let limits = [
        65504.0f32,
        65519.0,
        65519.996,
        65520.0,
        65535.99,
        65536.0,
        65600.0,
        131_071.99,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::INFINITY,
    ];
    let mut values: Vec<u32> = limits.iter().map(|value| value.to_bits()).collect();
    // Every payload of one bit, of all bits below one, and some that lie in bits which 16-bit types
    // drop.
    values.extend(
        (0..23)
            .flat_map(|bit| [1 << bit, (2 << bit) - 1])
            .map(|payload: u32| f32::INFINITY.to_bits() | payload),
    );
    let mut random = Random::new(1);
    let mut fractions = move || (0..5000).map(|_| (random.bits() >> 41) as u32).collect::<Vec<_>>();
    values.extend(fractions().iter().map(|payload| f32::INFINITY.to_bits() | (*payload).max(1)));
    // Subnormals of f32.
    values.extend((0..23).flat_map(|bit| [1 << bit, (2 << bit) - 1]));
    values.extend(fractions());
    values.iter().flat_map(|&bits| [bits, bits | 0x8000_0000]).collect()
}
