//! Owns the end of a layer in f64, written down apart from the library's: what enters the
//! activation, what leaves it, and what of an upstream gradient passes it.

use syncbn::low_level::{Epilogue, epilogue_of};
use syncbn_testkit::epilogue::bounds::{derivative, value};

use crate::scenario::{RankTensor, Scenario, Step};

/// act(v).
pub fn activated(epilogue: Epilogue, v: f64) -> f64 {
    value(epilogue, v)
}

/// v of every value of every rank, normalized with mean and variance, each of length C; in the
/// layout of the inputs.
pub fn entering(scenario: &Scenario, step: &Step, (mean, var): (&[f64], &[f64])) -> Vec<Vec<f64>> {
    let parameter = |values: &Option<Vec<f32>>, c: usize, fill: f64| {
        values.as_ref().map_or(fill, |v| v[c].into())
    };
    let of_rank = |(rank, input): (usize, &RankTensor)| {
        let map = input.map();
        let residual = step.residuals.as_ref().map(|ranks| &ranks[rank].values);
        let value = |(i, &x): (usize, &f32)| {
            let c = map.channel(i);
            let weight = parameter(&scenario.weight, c, 1.0);
            let bias = parameter(&scenario.bias, c, 0.0);
            let sum = var[c] + scenario.config.eps;
            let inv_std = if sum == 0.0 { 0.0 } else { 1.0 / sum.sqrt() };
            weight * (f64::from(x) - mean[c]) * inv_std
                + bias
                + residual.map_or(0.0, |z| f64::from(z[i]))
        };
        input.values.iter().enumerate().map(value).collect()
    };
    step.inputs.iter().enumerate().map(of_rank).collect()
}

/// The upstream gradients of a step behind the activation: g·act'(v).
pub fn passed(
    scenario: &Scenario,
    step: &Step,
    statistics: (&[f64], &[f64]),
) -> Option<Vec<RankTensor>> {
    let mut passed = step.grad_outputs.clone()?;
    let epilogue = epilogue_of(&scenario.config);
    for (g, v) in passed.iter_mut().zip(entering(scenario, step, statistics)) {
        g.values.iter_mut().zip(v).for_each(|(g, v)| *g *= derivative(epilogue, v) as f32);
    }
    Some(passed)
}
