//! Owns the values that both sides get, and their comparison.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How far the two may be apart, for outputs of about 1: a hundred roundings in f32, more than sums
/// of either kind do.
pub const TOLERANCE: f32 = 100.0 / (1u32 << 23) as f32;

/// x and the upstream gradient of the comparison, (N, C, spatial…).
pub struct Batch {
    pub dims: Vec<usize>,
    pub x: Vec<f32>,
    pub grad_output: Vec<f32>,
}

impl Batch {
    /// Numbers in −2 … 2, the same in every run.
    pub fn random(dims: &[usize]) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let count = dims.iter().product();
        let mut values =
            || (0..count).map(|_| random.next_u32() as f32 / (1u32 << 30) as f32 - 2.0).collect();
        Self { dims: dims.to_vec(), x: values(), grad_output: values() }
    }
}

/// The largest difference; NaN counts as infinite.
pub fn farthest(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(
        0.0,
        |far, difference| if difference.is_nan() { f32::INFINITY } else { far.max(difference) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_pair_counts_and_nan_is_far() {
        assert_eq!(farthest(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert_eq!(farthest(&[1.0, f32::NAN], &[1.0, 2.0]), f32::INFINITY);
        assert_eq!(farthest(&[1.0], &[1.0, 2.0]), f32::INFINITY);
    }
}
