//! Results of the f64 definition for batches.

use syncbn::config::AffineGradient;
use syncbn_reference::{self as reference, Affine, RankBatch, TrainForward};

use crate::batch::{Batch, Parameters};

/// The f64 definition of training on these batches.
pub fn definition(batches: &[Batch], parameters: Option<&Parameters>, eps: f64) -> TrainForward {
    with_ranks(batches, parameters, |ranks, affine| {
        reference::forward_train(ranks, affine, eps).expect("valid")
    })
}

/// The f64 definition of y for statistics that are given.
pub fn definition_with(
    batches: &[Batch],
    parameters: Option<&Parameters>,
    mean: &[f64],
    var: &[f64],
    eps: f64,
) -> Vec<Vec<f64>> {
    let y = |ranks: &[RankBatch<'_>], affine: Affine<'_>| {
        reference::forward_with_statistics(ranks, mean, var, affine, eps).expect("valid")
    };
    with_ranks(batches, parameters, y)
}

fn with_ranks<T>(
    batches: &[Batch],
    parameters: Option<&Parameters>,
    apply: impl FnOnce(&[RankBatch<'_>], Affine<'_>) -> T,
) -> T {
    let values: Vec<Vec<f64>> = batches.iter().map(|batch| widened(&batch.values)).collect();
    let ranks: Vec<RankBatch<'_>> = batches
        .iter()
        .zip(&values)
        .map(|(batch, values)| RankBatch { dims: &batch.dims, values })
        .collect();
    let weight = parameters.map(|parameters| widened(&parameters.weight));
    let bias = parameters.map(|parameters| widened(&parameters.bias));
    apply(&ranks, Affine { weight: weight.as_deref(), bias: bias.as_deref() })
}

/// What every rank gets of the ranks' own gradients of a parameter.
pub fn reduced(local: Vec<Vec<f64>>, of: AffineGradient) -> Vec<Vec<f64>> {
    let divisor = match of {
        AffineGradient::Local => return local,
        AffineGradient::GroupSum => 1.0,
        AffineGradient::GroupMean => local.len() as f64,
    };
    let sum = |channel: usize| local.iter().map(|rank| rank[channel]).sum::<f64>() / divisor;
    let sums: Vec<f64> = (0..local[0].len()).map(sum).collect();
    vec![sums; local.len()]
}

pub fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}
