//! Random values of several kinds, their grids, and their sums by the definition.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::stats::{GridParams, ValueRange};

/// Random numbers, the same in every run.
pub struct Uniform(ChaCha8Rng);

impl Uniform {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From −1 to 1.
    pub fn next(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (((self.next() + 1.0) / 2.0) * n as f64) as usize
    }
}

/// Kinds of values.
pub const KINDS: [&str; 10] = [
    "uniform",
    "constant",
    "far mean",
    "outliers",
    "both ends",
    "largest",
    "tiny",
    "subnormal",
    "integers",
    "half steps",
];

pub fn values(kind: &str, len: usize, random: &mut Uniform) -> Vec<f32> {
    let mut value = |at: usize| {
        let of = random.next();
        let sign = of.signum();
        match kind {
            "uniform" => of,
            "constant" => 10_000.1,
            "far mean" => 1e6 + of,
            "outliers" if at.is_multiple_of(977) => 1370.0 * sign,
            "outliers" => 1.247 * sign,
            "both ends" => sign,
            "largest" => 3.4e38 * sign,
            "tiny" => 1e-33 * of,
            "subnormal" => f64::from(f32::MIN_POSITIVE) * of,
            "integers" => (of * 100.0).round(),
            _ => (of * 1e6).round() + 0.5,
        }
    };
    (0..len).map(|at| value(at) as f32).collect()
}

pub fn range(values: &[f32]) -> ValueRange {
    values.iter().fold(ValueRange::EMPTY, |range, &x| {
        range.merge(if x.is_finite() {
            ValueRange { count: 1, low: x, high: x }
        } else {
            ValueRange::not_finite(1)
        })
    })
}

/// The grid of values, and that of gradients.
pub fn grids(x: &[f32], g: &[f32]) -> [GridParams; 2] {
    let largest = g.iter().fold(0f32, |most, g| most.max(g.abs()));
    let of_g = ValueRange { count: g.len() as u64, low: -largest, high: largest };
    [range(x).grid().params(), of_g.grid().params()]
}

/// Both sums of x and g by the definition, of every kind.
pub fn defined(x: &[f32], g: &[f32], [of_x, of_g]: [GridParams; 2]) -> [[i128; 2]; 3] {
    let mut sums = [[0; 2]; 3];
    for (x, g) in x.iter().zip(g) {
        let [q, r] = of_x.integers(*x).map(i128::from);
        let [w, _] = of_g.integers(*g).map(i128::from);
        for (sums, of) in sums.iter_mut().zip([[q, q * q], [r, (q << 25) * r + r * r], [w, q * w]])
        {
            sums[0] += of[0];
            sums[1] += of[1];
        }
    }
    sums
}

/// In units of its grid, as the walk has them.
pub fn in_units(values: &[f32], grid: &GridParams) -> Vec<f32> {
    values.iter().map(|value| value * grid.unit).collect()
}
