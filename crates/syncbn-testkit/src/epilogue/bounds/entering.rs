//! The input of the activation by the definition, with its bounds.

use syncbn::low_level::Epilogue;
use syncbn_reference::{self as reference, Affine};

use super::{ranks, wide};
use crate::compare::{TOLERANCE_ULP, ulp};
use crate::epilogue::problem::{Problem, Uses};
use crate::oracle::widened;

/// The activation's input.
pub struct Entering {
    pub mean: Vec<f64>,
    pub var: Vec<f64>,
    pub inv_std: Vec<f64>,
    /// Per rank, channels first.
    pub v: Vec<Vec<f64>>,
    /// How far from it an f32 may be, per channel.
    pub bound: Vec<f64>,
    /// The largest |v|, per channel.
    pub largest: Vec<f64>,
}

impl Entering {
    pub fn of(problem: &Problem, uses: Uses) -> Self {
        let values = wide(&problem.x);
        let x = ranks(&problem.x, &values);
        let batch = reference::batch_statistics(&x).expect("valid batches");
        let (mean, var) = match uses {
            Uses::Group => (batch.mean, batch.var_biased),
            Uses::Running => (widened(&problem.running.mean), widened(&problem.running.var)),
        };
        let weight = problem.weight().map(widened);
        let bias = problem.bias().map(widened);
        let affine = Affine { weight: weight.as_deref(), bias: bias.as_deref() };
        let eps = problem.config.eps;
        let mut v = reference::forward_with_statistics(&x, &mean, &var, affine, eps)
            .expect("valid batches");
        let inv_std: Vec<f64> = var.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();

        let mut largest = vec![0f64; mean.len()];
        for (batch, normalized) in problem.x.iter().zip(&v) {
            for (index, (&x, normalized)) in batch.values.iter().zip(normalized).enumerate() {
                let c = batch.channel(index);
                let made_of = || {
                    let [weight, bias] = [(&weight, 1.0), (&bias, 0.0)]
                        .map(|(of, fill)| of.as_ref().map_or(fill, |v| v[c]));
                    (weight * (f64::from(x) - mean[c]) * inv_std[c]).abs() + bias.abs()
                };
                let size = if uses == Uses::Group { normalized.abs() } else { made_of() };
                largest[c] = largest[c].max(size);
            }
        }
        let mut bound: Vec<f64> =
            largest.iter().map(|&largest| TOLERANCE_ULP * ulp(largest)).collect();
        for (v, residual) in v.iter_mut().zip(problem.residuals.iter().flatten()) {
            v.iter_mut().zip(&residual.values).for_each(|(v, residual)| *v += f64::from(*residual));
        }
        largest.fill(0.0);
        for (batch, v) in problem.x.iter().zip(&v) {
            v.iter().enumerate().for_each(|(index, v)| {
                let largest = &mut largest[batch.channel(index)];
                *largest = largest.max(v.abs());
            });
        }
        if problem.epilogue() != Epilogue::NONE {
            bound.iter_mut().zip(&largest).for_each(|(bound, largest)| *bound += ulp(*largest));
        }
        Self { mean, var, inv_std, v, bound, largest }
    }
}
