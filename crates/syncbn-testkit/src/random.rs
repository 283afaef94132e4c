//! Numbers from a seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

/// Numbers from a seed, the same in every run and on every machine.
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform in −1 … 1.
    #[expect(clippy::should_implement_trait, reason = "one of several kinds of next numbers")]
    pub fn next(&mut self) -> f64 {
        2.0 * self.uniform() - 1.0
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// Of mean 0 and deviation 1.
    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// The boundaries of so many parts of 0 .. `samples`. Some parts are empty.
    pub fn cuts(&mut self, samples: usize, parts: usize) -> Vec<usize> {
        let mut cuts: Vec<usize> = (1..parts).map(|_| self.below(samples + 1)).collect();
        cuts.extend([0, samples]);
        cuts.sort_unstable();
        cuts
    }

    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next() as f32).collect()
    }
}
