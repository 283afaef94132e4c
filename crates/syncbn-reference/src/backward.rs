//! Owns the gradients of the definition: of the group's batch statistics, and of given ones.

use super::sum::CompensatedSum;
use super::{
    RankBatch, ReferenceError, batch_statistics, by_channel, check, check_length, inv_std, or_fill,
    ratio,
};

/// The gradients of one call. The parameter gradients are local ones: each rank's own terms, none
/// exchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// grad_input of every rank, in the shape of its input.
    pub grad_inputs: Vec<Vec<f64>>,
    /// grad_weight of every rank, of length C each; zeros on an empty rank.
    pub grad_weights: Vec<Vec<f64>>,
    /// grad_bias of every rank, of length C each; zeros on an empty rank.
    pub grad_biases: Vec<Vec<f64>>,
}

/// Per channel Σg and Σ g·(x - mean), over one rank or over the group.
struct Sums {
    dy: Vec<CompensatedSum>,
    dy_xmu: Vec<CompensatedSum>,
}

/// The gradients of training, with g the upstream gradient `grad_outputs`, A = Σg and B = Σ g·(x -
/// mean) over the group:
///
/// ```text
/// grad_input  = weight · inv_std · (g - A/N - (x - mean) · inv_std² · B/N)
/// grad_weight = inv_std · local Σ g·(x - mean)        grad_bias = local Σg
/// ```
///
/// `grad_outputs` has the shapes of `inputs`; `weight`, when given, is of length C.
pub fn backward_train(
    inputs: &[RankBatch<'_>],
    grad_outputs: &[RankBatch<'_>],
    weight: Option<&[f64]>,
    eps: f64,
) -> Result<Gradients, ReferenceError> {
    let statistics = batch_statistics(inputs)?;
    let count = statistics.count;
    let mean = &statistics.mean;
    if count == 1 {
        return Err(ReferenceError::SingleValue);
    }
    let channels = check_pairs(inputs, grad_outputs)?;
    let weight = or_fill("weight", weight, 1.0, channels)?;
    let inv_std = inv_std(&statistics.var_biased, eps);

    let group = sums(inputs, grad_outputs, mean);
    let mean_dy: Vec<f64> = group.dy.iter().map(|sum| ratio(sum.total(), count)).collect();
    let mean_dy_xmu: Vec<f64> = group.dy_xmu.iter().map(|sum| ratio(sum.total(), count)).collect();
    let grad_input = |c: usize, x: f64, g: f64| {
        let projected = (x - mean[c]) * inv_std[c] * inv_std[c] * mean_dy_xmu[c];
        weight[c] * inv_std[c] * (g - mean_dy[c] - projected)
    };
    Ok(gradients(inputs, grad_outputs, mean, &inv_std, grad_input))
}

/// The gradients with given statistics, each of length C, which are constants:
///
/// ```text
/// grad_input = g · weight · inv_std
/// grad_weight = inv_std · local Σ g·(x - mean)      grad_bias = local Σg
/// ```
pub fn backward_with_statistics(
    inputs: &[RankBatch<'_>],
    grad_outputs: &[RankBatch<'_>],
    mean: &[f64],
    var: &[f64],
    weight: Option<&[f64]>,
    eps: f64,
) -> Result<Gradients, ReferenceError> {
    let channels = check_pairs(inputs, grad_outputs)?;
    check_length("mean", mean.len(), channels)?;
    check_length("var", var.len(), channels)?;
    let weight = or_fill("weight", weight, 1.0, channels)?;
    let inv_std = inv_std(var, eps);
    let grad_input = |c: usize, _x: f64, g: f64| g * weight[c] * inv_std[c];
    Ok(gradients(inputs, grad_outputs, mean, &inv_std, grad_input))
}

fn gradients(
    inputs: &[RankBatch<'_>],
    grad_outputs: &[RankBatch<'_>],
    mean: &[f64],
    inv_std: &[f64],
    grad_input: impl Fn(usize, f64, f64) -> f64,
) -> Gradients {
    let mut result =
        Gradients { grad_inputs: Vec::new(), grad_weights: Vec::new(), grad_biases: Vec::new() };
    for (input, grad_output) in inputs.iter().zip(grad_outputs) {
        let pairs = by_channel(input).zip(grad_output.values);
        result.grad_inputs.push(pairs.map(|((c, x), &g)| grad_input(c, x, g)).collect());

        let local = sums(std::slice::from_ref(input), std::slice::from_ref(grad_output), mean);
        let scaled = local.dy_xmu.iter().zip(inv_std).map(|(sum, inv_std)| inv_std * sum.total());
        result.grad_weights.push(scaled.collect());
        result.grad_biases.push(local.dy.iter().map(|sum| sum.total()).collect());
    }
    result
}

fn sums(inputs: &[RankBatch<'_>], grad_outputs: &[RankBatch<'_>], mean: &[f64]) -> Sums {
    let empty = vec![CompensatedSum::default(); mean.len()];
    let mut sums = Sums { dy: empty.clone(), dy_xmu: empty };
    for (input, grad_output) in inputs.iter().zip(grad_outputs) {
        for ((c, x), &g) in by_channel(input).zip(grad_output.values) {
            sums.dy[c].add(g);
            sums.dy_xmu[c].add(g * (x - mean[c]));
        }
    }
    sums
}

/// Checks both sides, and that they are of the same shapes; gives the number of channels.
pub(super) fn check_pairs(
    inputs: &[RankBatch<'_>],
    grad_outputs: &[RankBatch<'_>],
) -> Result<usize, ReferenceError> {
    check_length("grad_outputs (one per rank)", grad_outputs.len(), inputs.len())?;
    let channels = check(inputs)?;
    check(grad_outputs)?;
    for (rank, (input, grad_output)) in inputs.iter().zip(grad_outputs).enumerate() {
        if input.dims != grad_output.dims {
            let input = input.dims.to_vec();
            let grad_output = grad_output.dims.to_vec();
            return Err(ReferenceError::Shapes { rank, input, grad_output });
        }
    }
    Ok(channels)
}
