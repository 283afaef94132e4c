//! Normally distributed batches.

use super::{Batch, Random};

/// Normally distributed values, with a mean and a deviation of their own for every rank and
/// channel.
pub fn normal(
    dims: &[&[usize]],
    seed: u64,
    moments: impl Fn(usize, usize) -> (f64, f64),
) -> Vec<Batch> {
    let mut random = Random(seed);
    let mut rank_of = |rank: usize, dims: &[usize]| {
        let inner: usize = dims[2..].iter().product();
        Batch::new(dims, |index| {
            let (mean, deviation) = moments(rank, index / inner % dims[1]);
            (mean + deviation * random.normal()) as f32
        })
    };
    dims.iter().enumerate().map(|(rank, dims)| rank_of(rank, dims)).collect()
}
