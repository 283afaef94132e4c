//! Results of the f64 definition for batches.

use syncbn::config::AffineGradient;
use syncbn_reference::{self as reference, Affine, RankBatch, TrainForward};

use crate::batch::{Batch, Parameters};

/// The f64 definition of training on these batches.
pub fn definition(batches: &[Batch], parameters: Option<&Parameters>, eps: f64) -> TrainForward {
    let values = wide(batches);
    let (weight, bias) = wide_parameters(parameters);
    let affine = Affine { weight: weight.as_deref(), bias: bias.as_deref() };
    let ranks = ranks(batches, &values);
    reference::forward_train(&ranks, affine, eps).expect("valid")
}

/// The f64 definition of y for statistics that are given.
pub fn definition_with(
    batches: &[Batch],
    parameters: Option<&Parameters>,
    mean: &[f64],
    var: &[f64],
    eps: f64,
) -> Vec<Vec<f64>> {
    let values = wide(batches);
    let (weight, bias) = wide_parameters(parameters);
    let affine = Affine { weight: weight.as_deref(), bias: bias.as_deref() };
    let ranks = ranks(batches, &values);
    reference::forward_with_statistics(&ranks, mean, var, affine, eps).expect("valid")
}

/// Weight and bias in f64.
fn wide_parameters(parameters: Option<&Parameters>) -> (Option<Vec<f64>>, Option<Vec<f64>>) {
    parameters.map(|of| (widened(&of.weight), widened(&of.bias))).unzip()
}

/// The batches in f64, as the definition takes them.
pub fn with_ranks<T>(batches: &[Batch], apply: impl FnOnce(&[RankBatch<'_>]) -> T) -> T {
    apply(&ranks(batches, &wide(batches)))
}

/// The values of batches in f64.
pub fn wide(batches: &[Batch]) -> Vec<Vec<f64>> {
    batches.iter().map(|batch| widened(&batch.values)).collect()
}

/// Values in the shapes of batches, as the definition takes them.
pub fn ranks<'a>(batches: &'a [Batch], values: &'a [Vec<f64>]) -> Vec<RankBatch<'a>> {
    batches
        .iter()
        .zip(values)
        .map(|(batch, values)| RankBatch { dims: &batch.dims, values })
        .collect()
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
