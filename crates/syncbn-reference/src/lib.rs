//! The textbook definition of synchronized batch normalization, in f64: the oracle of its tests and
//! of checks in its examples.
//!
//! It shares no code with `syncbn` and keeps nothing between calls. Formulas have their printed
//! form, not a fast one. It computes ordinary batch normalization of the ranks' inputs concatenated
//! along the batch (S. Ioffe and C. Szegedy, *Batch Normalization: Accelerating Deep Network
//! Training by Reducing Internal Covariate Shift*, ICML 2015, arXiv:1502.03167, algorithm 1 and the
//! derivatives after it).
//!
//! With `N` values per channel in the whole group, all sums over the group:
//!
//! ```text
//! mean = Σx / N        var_biased = Σ(x - mean)² / N        inv_std = 1 / √(var_biased + eps)
//! y    = weight · (x - mean) · inv_std + bias
//! ```
//!
//! Every function takes one [`RankBatch`] per rank, channels first: dimensions `(N, C, spatial...)`
//! and their values in row-major order. Ranks may differ in batch and in spatial size, and a rank
//! may be empty. Channels agree.
//!
//! Means and variances are taken in two passes with compensated sums. For a mean of 1e6 and a
//! deviation of 1, the mean has an error of about 1e-15 of itself. A value minus the mean has an
//! error of about 1e-10 of the deviation.
//!
//! ```
//! use syncbn_reference::{Affine, RankBatch, forward_train};
//!
//! // One channel; three samples on rank 0, one on rank 1.
//! let inputs = [
//!     RankBatch { dims: &[3, 1], values: &[2.0, 2.0, 6.0] },
//!     RankBatch { dims: &[1, 1], values: &[6.0] },
//! ];
//! let forward = forward_train(&inputs, Affine::default(), 0.0)?;
//! assert_eq!(forward.statistics.mean, [4.0]);
//! assert_eq!(forward.outputs, [vec![-1.0, -1.0, 1.0], vec![1.0]]);
//! # Ok::<(), syncbn_reference::ReferenceError>(())
//! ```

pub mod activation;
mod backward;
pub mod bounds;
mod double;
mod error;
mod renorm;
mod sum;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_double;

pub use backward::{Gradients, backward_train, backward_with_statistics};
pub use double::{
    Cotangents, DoubleGradients, double_backward_train, double_backward_with_statistics,
};
pub use error::ReferenceError;
pub use renorm::{Correction, renormalized_backward, renormalized_forward};

use sum::CompensatedSum;

/// The data of one rank: dimensions `(N, C, spatial...)` and the values in row-major order,
/// channels first.
#[derive(Clone, Copy, Debug)]
pub struct RankBatch<'a> {
    /// Batch, channels, then the spatial sizes, if any. A batch of 0 is an empty rank.
    pub dims: &'a [usize],
    /// The values, as many as the product of `dims`.
    pub values: &'a [f64],
}

/// Mean and biased variance of every channel over the whole group; both of length C.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchStatistics {
    /// Values per channel, N. The mean and variance of nothing are given as 0.
    pub count: u64,
    /// Σx / N.
    pub mean: Vec<f64>,
    /// Σ(x - mean)² / N.
    pub var_biased: Vec<f64>,
}

/// The result of a forward pass in training.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainForward {
    /// y of every rank, in the shape of its input.
    pub outputs: Vec<Vec<f64>>,
    /// The statistics that normalized the outputs.
    pub statistics: BatchStatistics,
}

/// The learned scale and shift, each of length C; absent stands for ones and for zeros.
#[derive(Clone, Copy, Debug, Default)]
pub struct Affine<'a> {
    /// The scale (gamma).
    pub weight: Option<&'a [f64]>,
    /// The shift (beta).
    pub bias: Option<&'a [f64]>,
}

/// The divisor of the variance that enters the running variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisor {
    /// Σ(x - mean)² / (N - 1), unbiased: PyTorch, MindSpore.
    CountMinusOne,
    /// Σ(x - mean)² / N, biased: ONNX, Keras, Flax.
    Count,
}

/// The running mean and variance, each of length C.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// running_mean.
    pub mean: Vec<f64>,
    /// running_var.
    pub var: Vec<f64>,
}

impl Running {
    /// r ← (1 - factor)·r + factor·batch, where `factor` is the weight of the new batch.
    ///
    /// A group without values changes nothing.
    pub fn update(
        &mut self,
        batch: &BatchStatistics,
        factor: f64,
        divisor: Divisor,
    ) -> Result<(), ReferenceError> {
        let channels = batch.mean.len();
        check_length("running_mean", self.mean.len(), channels)?;
        check_length("running_var", self.var.len(), channels)?;
        check_length("var_biased", batch.var_biased.len(), channels)?;
        let correction = match (divisor, batch.count) {
            (_, 0) => return Ok(()),
            (Divisor::CountMinusOne, 1) => return Err(ReferenceError::SingleValue),
            (Divisor::CountMinusOne, n) => n as f64 / (n - 1) as f64,
            (Divisor::Count, _) => 1.0,
        };
        for (old, new) in self.mean.iter_mut().zip(&batch.mean) {
            *old = (1.0 - factor) * *old + factor * new;
        }
        for (old, new) in self.var.iter_mut().zip(&batch.var_biased) {
            *old = (1.0 - factor) * *old + factor * (new * correction);
        }
        Ok(())
    }
}

/// Mean and biased variance of every channel over all ranks.
pub fn batch_statistics(inputs: &[RankBatch<'_>]) -> Result<BatchStatistics, ReferenceError> {
    let channels = check(inputs)?;
    let mut sums = vec![CompensatedSum::default(); channels];
    for_each(inputs, |c, x| sums[c].add(x));
    let count = values_per_channel(inputs);
    let mean: Vec<f64> = sums.iter().map(|sum| ratio(sum.total(), count)).collect();

    let mut squares = vec![CompensatedSum::default(); channels];
    for_each(inputs, |c, x| squares[c].add((x - mean[c]) * (x - mean[c])));
    let var_biased = squares.iter().map(|sum| ratio(sum.total(), count)).collect();
    Ok(BatchStatistics { count, mean, var_biased })
}

/// y of training: every rank normalized with the statistics of the whole group.
///
/// # Errors
/// Beside shapes that do not fit: a group with one single value per channel.
pub fn forward_train(
    inputs: &[RankBatch<'_>],
    affine: Affine<'_>,
    eps: f64,
) -> Result<TrainForward, ReferenceError> {
    let statistics = batch_statistics(inputs)?;
    if statistics.count == 1 {
        return Err(ReferenceError::SingleValue);
    }
    let outputs =
        forward_with_statistics(inputs, &statistics.mean, &statistics.var_biased, affine, eps)?;
    Ok(TrainForward { outputs, statistics })
}

/// y for given statistics, each of length C: evaluation with running statistics.
pub fn forward_with_statistics(
    inputs: &[RankBatch<'_>],
    mean: &[f64],
    var: &[f64],
    affine: Affine<'_>,
    eps: f64,
) -> Result<Vec<Vec<f64>>, ReferenceError> {
    let channels = check(inputs)?;
    check_length("mean", mean.len(), channels)?;
    check_length("var", var.len(), channels)?;
    let weight = or_fill("weight", affine.weight, 1.0, channels)?;
    let bias = or_fill("bias", affine.bias, 0.0, channels)?;
    let inv_std = inv_std(var, eps);
    Ok(inputs
        .iter()
        .map(|input| {
            let y = |(c, x): (usize, f64)| weight[c] * (x - mean[c]) * inv_std[c] + bias[c];
            by_channel(input).map(y).collect()
        })
        .collect())
}

/// 1 / √(var + eps) of every channel. 0 if var + eps is 0, so a constant channel gives the bias
/// with eps = 0 too.
fn inv_std(var: &[f64], eps: f64) -> Vec<f64> {
    var.iter().map(|var| if var + eps == 0.0 { 0.0 } else { 1.0 / (var + eps).sqrt() }).collect()
}

/// The values of one rank with their channels. The dimensions have been checked.
fn by_channel<'a>(batch: &RankBatch<'a>) -> impl Iterator<Item = (usize, f64)> + use<'a> {
    let channels = batch.dims[1];
    let spatial = product(&batch.dims[2..]);
    batch.values.iter().enumerate().map(move |(i, &x)| ((i / spatial) % channels, x))
}

fn for_each(inputs: &[RankBatch<'_>], mut visit: impl FnMut(usize, f64)) {
    inputs.iter().flat_map(by_channel).for_each(|(c, x)| visit(c, x));
}

fn values_per_channel(inputs: &[RankBatch<'_>]) -> u64 {
    inputs
        .iter()
        .map(|input| {
            let spatial = product(&input.dims[2..]);
            product(&[input.dims[0], spatial]) as u64
        })
        .fold(0, u64::saturating_add)
}

/// Saturating: dimensions whose product does not fit have no values in memory either, and must not
/// end in a panic.
fn product(dims: &[usize]) -> usize {
    if dims.contains(&0) {
        0
    } else {
        dims.iter().fold(1, |product: usize, &d| product.saturating_mul(d))
    }
}

fn ratio(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Checks the shapes of all ranks and gives the number of channels.
fn check(inputs: &[RankBatch<'_>]) -> Result<usize, ReferenceError> {
    let first = inputs.first().ok_or(ReferenceError::NoRanks)?;
    let expected = *first
        .dims
        .get(1)
        .ok_or(ReferenceError::Dimensions { rank: 0, found: first.dims.len() })?;
    for (rank, input) in inputs.iter().enumerate() {
        let found = *input
            .dims
            .get(1)
            .ok_or(ReferenceError::Dimensions { rank, found: input.dims.len() })?;
        if found != expected {
            return Err(ReferenceError::Channels { rank, found, expected });
        }
        check_length(
            &format!("the batch of rank {rank}"),
            input.values.len(),
            product(input.dims),
        )?;
    }
    Ok(expected)
}

fn check_length(what: &str, found: usize, expected: usize) -> Result<(), ReferenceError> {
    if found == expected {
        Ok(())
    } else {
        Err(ReferenceError::Length { what: what.to_owned(), found, expected })
    }
}

fn or_fill(
    what: &str,
    given: Option<&[f64]>,
    fill: f64,
    channels: usize,
) -> Result<Vec<f64>, ReferenceError> {
    let values = given.map_or_else(|| vec![fill; channels], <[f64]>::to_vec);
    check_length(what, values.len(), channels)?;
    Ok(values)
}
