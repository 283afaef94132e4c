//! v, the input of an activation: what it should be, and how far from it an f32 may be.

use super::ulp;
use crate::{
    Affine, RankBatch, ReferenceError, batch_statistics, by_channel, check,
    forward_with_statistics, inv_std, or_fill,
};

/// The statistics that normalize.
#[derive(Clone, Copy, Debug)]
pub enum Statistics<'a> {
    /// Those of the group's batch: training.
    OfBatch,
    /// Constants, each of length C: evaluation with running statistics.
    Given {
        /// The mean.
        mean: &'a [f64],
        /// The biased variance.
        var: &'a [f64],
    },
}

/// What v follows from: v = normalized (+ residual).
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// x of every rank.
    pub inputs: &'a [RankBatch<'a>],
    /// The residual of every rank, in the shape of its input.
    pub residuals: Option<&'a [Vec<f64>]>,
    /// The statistics that normalize.
    pub statistics: Statistics<'a>,
    /// The scale and the shift.
    pub affine: Affine<'a>,
    /// The eps of inv_std.
    pub eps: f64,
    /// How far the normalized value may be off, in ulp.
    pub ulps: f64,
    /// Whether v is rounded once more: a residual is added, or a slope is multiplied.
    pub rounds_again: bool,
}

/// v of every rank, and its bound:
///
/// ```text
/// v   `ulps` ulp of the channel's largest |normalized|, or with statistics that are given of the
///     largest |weight·x̂| + |bias|; one ulp of the largest |v| if it is rounded again
/// ```
///
/// weight·x̂ of a batch averages to 0, so neither |bias| nor half of the largest |weight·x̂|
/// exceeds the largest |normalized|, and `ulps` accounts for both. With statistics that are given,
/// the normalized value may be small beside its two terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Preactivation {
    /// The mean that normalized, of length C.
    pub mean: Vec<f64>,
    /// The biased variance that normalized, of length C.
    pub var: Vec<f64>,
    /// 1 / √(var + eps), of length C.
    pub inv_std: Vec<f64>,
    /// v of every rank, in the shape of its input.
    pub v: Vec<Vec<f64>>,
    /// How far from it an f32 may be, per channel.
    pub bound: Vec<f64>,
    /// The largest |v|, per channel.
    pub largest: Vec<f64>,
}

impl Preactivation {
    /// Of one call.
    ///
    /// # Errors
    /// Of shapes that do not fit.
    pub fn of(call: &Call<'_>) -> Result<Self, ReferenceError> {
        let Call { inputs, affine, eps, .. } = *call;
        let channels = check(inputs)?;
        let (mean, var) = match call.statistics {
            Statistics::OfBatch => {
                let batch = batch_statistics(inputs)?;
                (batch.mean, batch.var_biased)
            }
            Statistics::Given { mean, var } => (mean.to_vec(), var.to_vec()),
        };
        let mut v = forward_with_statistics(inputs, &mean, &var, affine, eps)?;
        let weight = or_fill("weight", affine.weight, 1.0, channels)?;
        let bias = or_fill("bias", affine.bias, 0.0, channels)?;
        let inv_std = inv_std(&var, eps);

        let size = |c: usize, x: f64, normalized: f64| match call.statistics {
            Statistics::OfBatch => normalized.abs(),
            Statistics::Given { .. } => {
                (weight[c] * (x - mean[c]) * inv_std[c]).abs() + bias[c].abs()
            }
        };
        let normalized = largest_of(inputs, &v, size);
        let mut bound: Vec<f64> =
            normalized.iter().map(|&largest| call.ulps * ulp(largest)).collect();
        for (v, residual) in v.iter_mut().zip(call.residuals.into_iter().flatten()) {
            v.iter_mut().zip(residual).for_each(|(v, residual)| *v += residual);
        }
        let largest = largest_of(inputs, &v, |_, _, v| v.abs());
        if call.rounds_again {
            bound.iter_mut().zip(&largest).for_each(|(bound, &largest)| *bound += ulp(largest));
        }
        Ok(Self { mean, var, inv_std, v, bound, largest })
    }
}

/// The largest size of every channel, where sizes follow from a channel, its x and its value.
fn largest_of(
    inputs: &[RankBatch<'_>],
    values: &[Vec<f64>],
    size: impl Fn(usize, f64, f64) -> f64,
) -> Vec<f64> {
    let mut largest = vec![0f64; inputs.first().map_or(0, |input| input.dims[1])];
    for (input, values) in inputs.iter().zip(values) {
        for ((c, x), &value) in by_channel(input).zip(values) {
            largest[c] = largest[c].max(size(c, x, value));
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_counts_ulps_of_the_largest_value_and_another_one_for_what_follows() {
        const ULP_OF_1: f64 = 1.0 / (1u64 << 23) as f64;
        let inputs = [
            RankBatch { dims: &[3, 1], values: &[2.0, 2.0, 6.0] },
            RankBatch { dims: &[1, 1], values: &[6.0] },
        ];
        let plain = Call {
            inputs: &inputs,
            residuals: None,
            statistics: Statistics::OfBatch,
            affine: Affine::default(),
            eps: 0.0,
            ulps: 8.0,
            rounds_again: false,
        };
        let of_batch = Preactivation::of(&plain).expect("valid");
        assert_eq!(of_batch.v, [vec![-1.0, -1.0, 1.0], vec![1.0]]);
        assert_eq!((of_batch.bound[0], of_batch.largest[0]), (8.0 * ULP_OF_1, 1.0));

        let residuals = [vec![0.0, 0.0, 0.0], vec![4.0]];
        let added = Call { residuals: Some(&residuals), rounds_again: true, ..plain };
        let added = Preactivation::of(&added).expect("valid");
        assert_eq!(added.v[1], [5.0]);
        assert_eq!((added.bound[0], added.largest[0]), ((8.0 + 4.0) * ULP_OF_1, 5.0));

        // x̂ is −1 and 1 again, and the bias takes one of them away.
        let given = Call {
            statistics: Statistics::Given { mean: &[4.0], var: &[4.0] },
            affine: Affine { weight: None, bias: Some(&[1.0]) },
            ..plain
        };
        let given = Preactivation::of(&given).expect("valid");
        assert_eq!(given.v, [vec![0.0, 0.0, 2.0], vec![2.0]]);
        assert_eq!(given.bound[0], 8.0 * 2.0 * ULP_OF_1);
    }
}
