//! Batches of which a sum of values or of squares keeps few digits.

use crate::batch::{Batch, normal};

/// Batches of ranks, with a name for messages.
#[derive(Clone, Debug)]
pub struct HardCase {
    pub name: String,
    pub batches: Vec<Batch>,
    pub eps: f64,
}

/// Means of a million deviations, with eps 1e-5. `number` chooses the seeds.
pub fn large_means(dims: &[&[usize]], number: usize) -> [HardCase; 3] {
    let case = |mean: f64, deviation: f64, seed: u64| HardCase {
        name: format!("mean {mean:e}, deviation {deviation:e}, {dims:?}"),
        batches: normal(dims, seed + number as u64, |_, _| (mean, deviation)),
        eps: 1e-5,
    };
    [case(1e4, 1e-2, 71), case(1e6, 1.0, 81), case(-1e6, 1.0, 91)]
}

/// Variances of 1e-10, far below an eps of 1e-5, or with an eps of 0. `number` chooses the seeds.
pub fn small_variances(dims: &[&[usize]], number: usize) -> [HardCase; 2] {
    let number = number as u64;
    let below_eps = HardCase {
        name: format!("deviation 1e-5, {dims:?}"),
        batches: normal(dims, 101 + number, |_, channel| (channel as f64, 1e-5)),
        eps: 1e-5,
    };
    let without_eps = HardCase {
        name: format!("eps 0, {dims:?}"),
        batches: normal(dims, 111 + number, |_, _| (1.0, 1e-5)),
        eps: 0.0,
    };
    [below_eps, without_eps]
}
