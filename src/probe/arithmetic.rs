//! Transformations of f32 arithmetic by the compiler and the device.

use super::Defect;
use super::cases::{CHANNELS, Draw, product_that_rounds_down};

/// Words of one invocation.
const WORDS: usize = 7;
pub(super) const ANSWER_WORDS: usize = CHANNELS * WORDS;

/// Transformations of f32 arithmetic on a device. WGSL allows all of them, and the kernels rely on
/// none. They explain differences of two devices in the last place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arithmetic {
    /// A product and a sum become one operation that rounds once.
    pub contracts: bool,
    /// a − (a + b) becomes −b.
    pub reassociates: bool,
    /// Subnormal results or operands become 0.
    pub flushes_subnormals: bool,
    /// ∞ − ∞ is not recognized as a NaN by its bits.
    pub misses_nan: bool,
    /// Sums behind an integer barrier that differ from those of the source.
    unsettled_sums: usize,
}

/// Products (a, b, −a·b rounded, a subnormal) and values (large, small, smallest normal, infinity):
/// every sum is 0 unless a product is not rounded, or large and small are not added.
pub(super) fn inputs() -> [Vec<u32>; 2] {
    /// Twice it is subnormal as well.
    const SUBNORMAL: f32 = f32::MIN_POSITIVE / 8.0;
    let mut draw = Draw::new();
    let mut products = Vec::new();
    let mut values = Vec::new();
    for _ in 0..CHANNELS {
        let [a, b] = product_that_rounds_down(&mut draw);
        products.extend([a, b, -(a * b), SUBNORMAL].map(f32::to_bits));
        // A quarter of the last place of large, and less.
        let large = draw.between(1.0, 2.0) * 1024.0;
        let small = draw.between(0.5, 1.0) * large * f32::EPSILON / 8.0;
        values.extend([large, small, f32::MIN_POSITIVE, f32::INFINITY].map(f32::to_bits));
    }
    [products, values]
}

impl Arithmetic {
    /// By an answer of the right length.
    pub(super) fn of(answer: &[u32]) -> Self {
        let is_zero = |word: u32| word << 1 == 0;
        let invocations = || answer.chunks_exact(WORDS);
        let sums = invocations().flat_map(|words| [words[2], words[3]]);
        Self {
            contracts: invocations().any(|words| !is_zero(words[0])),
            reassociates: invocations().any(|words| !is_zero(words[1])),
            flushes_subnormals: invocations().any(|words| is_zero(words[4]) || is_zero(words[5])),
            misses_nan: invocations().any(|words| words[6] != 1),
            unsettled_sums: sums.filter(|&word| !is_zero(word)).count(),
        }
    }

    /// The defect, if even barriers do not keep the order of the source.
    pub(super) fn defect(self) -> Option<Defect> {
        let differing = self.unsettled_sums;
        (differing > 0).then_some(Defect::Barriers { differing, sums: 2 * CHANNELS })
    }
}
