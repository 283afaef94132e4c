//! Owns the values that both sides get, and their comparison.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use syncbn_reference::{Affine, RankBatch, ReferenceError, backward_train, forward_train};

/// How far this project's results may be from the definition, for values of about 1: 16 units in
/// the last place of a value of 2, as the accuracy of a layer on one GPU is stated.
pub const TOLERANCE: f64 = 32.0 / (1u32 << 23) as f64;

/// Of both sides, by default.
const EPS: f64 = 1e-5;

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

/// The results of a training step on a batch by the definition, in f64.
pub struct Expected {
    pub y: Vec<f64>,
    pub grad_input: Vec<f64>,
}

impl Expected {
    /// With weight 1, bias 0 and the eps of both sides.
    pub fn of(batch: &Batch) -> Result<Self, ReferenceError> {
        let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
        let x = wide(&batch.x);
        let g = wide(&batch.grad_output);
        let [x, g] = [&x, &g].map(|values| [RankBatch { dims: &batch.dims, values }]);
        let affine = Affine { weight: None, bias: None };
        let mut forward = forward_train(&x, affine, EPS)?;
        let mut backward = backward_train(&x, &g, None, EPS)?;
        let y = forward.outputs.remove(0);
        let grad_input = backward.grad_inputs.remove(0);
        Ok(Self { y, grad_input })
    }
}

/// The largest difference; NaN counts as infinite.
pub fn farthest(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let differences = found.iter().zip(expected).map(|(&a, b)| (f64::from(a) - b).abs());
    differences.fold(
        0.0,
        |far, difference| if difference.is_nan() { f64::INFINITY } else { far.max(difference) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_pair_counts_and_nan_is_far() {
        assert_eq!(farthest(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert_eq!(farthest(&[1.0, f32::NAN], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(farthest(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }
}
