//! What a call should give by the f64 definition, and how far from it what it gave may be.
//!
//! An output is computed in f32 and then rounded once to its storage type. The second moves it by half an ulp of that type,
//! at the size of the result; the first is what tests of f32 allow, with k = |weight|·inv_std, x̂ = (x − mean)·inv_std, and
//! ⟨·⟩ the average of absolute values over what the statistics were taken of:
//!
//! ```text
//! y            8 ulp (TOLERANCE_ULP) of the channel's largest |y|; with running statistics, where |y| may be small beside
//!              what it is made of, of the largest |weight·x̂| and |bias| together
//! grad_bias    t·Σ|g|                                                              with t = STATISTICS_TOLERANCE
//! grad_weight  t·(Σ|g·x̂| + s·Σ|g|)          the second is what an error of the mean moves in x̂, times g
//! grad_input   t·k·( max|g| + ⟨g⟩ + max|x̂|·⟨g·x̂⟩ + s·(max|x̂|·⟨g⟩ + ⟨g·x̂⟩) )      the first term alone with running statistics
//! ```
//!
//! s is deviation·inv_std, for the error of the batch's mean, and u·|mean|·inv_std for what one f32 cannot hold of it, with
//! u = 2⁻²⁴; 0 with running statistics, which are exact. Values read are exact in their storage type, so that their rounding
//! is no part of it.
#![allow(dead_code)] // several test binaries compile their own copy and use a part of it

use syncbn::DType;
use syncbn::reference::{self, Affine, Gradients, RankBatch};

use super::common::*;
use super::problem::{Pass, Problem, Uses};
use super::stored::half_ulp;

/// Half an ulp of 1 in f32.
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// What the bounds of a channel depend on, over one rank or over the group.
#[derive(Clone, Copy, Default)]
struct Facts {
    values: f64,
    max_y: f64,
    max_g: f64,
    max_xhat: f64,
    sum_g: f64,
    sum_g_xhat: f64,
}

impl Facts {
    fn merge(self, other: Self) -> Self {
        Self {
            values: self.values + other.values,
            max_y: self.max_y.max(other.max_y),
            max_g: self.max_g.max(other.max_g),
            max_xhat: self.max_xhat.max(other.max_xhat),
            sum_g: self.sum_g + other.sum_g,
            sum_g_xhat: self.sum_g_xhat + other.sum_g_xhat,
        }
    }
}

/// The definition of one call, with its bounds.
pub struct Expected {
    uses: Uses,
    inv_std: Vec<f64>,
    mean_error: Vec<f64>,
    y: Vec<Vec<f64>>,
    gradients: Gradients,
    /// Per rank and channel.
    local: Vec<Vec<Facts>>,
    /// Per channel.
    group: Vec<Facts>,
}

impl Expected {
    pub fn of(problem: &Problem, uses: Uses) -> Self {
        let wide =
            |batches: &[Batch]| -> Vec<Vec<f64>> { batches.iter().map(|batch| widened(&batch.values)).collect() };
        let (x_values, g_values) = (wide(&problem.x), wide(&problem.g));
        let (x, g) = (ranks(&problem.x, &x_values), ranks(&problem.g, &g_values));
        let (weight, bias) = (problem.weight().map(widened), problem.bias().map(widened));
        let (weight, bias) = (weight.as_deref(), bias.as_deref());
        let (eps, affine) = (problem.config.eps, Affine { weight, bias });
        let batch = reference::batch_statistics(&x).expect("valid batches");
        let (mean, var) = match uses {
            Uses::Group => (batch.mean, batch.var_biased),
            Uses::Running => (widened(&problem.running.mean), widened(&problem.running.var)),
        };
        let y = reference::forward_with_statistics(&x, &mean, &var, affine, eps).expect("valid batches");
        let gradients = match uses {
            Uses::Group => reference::backward_train(&x, &g, weight, eps),
            Uses::Running => reference::backward_with_statistics(&x, &g, &mean, &var, weight, eps),
        };
        let inv_std: Vec<f64> = var.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
        let mean_error = |c: usize| match uses {
            Uses::Group => (var[c].sqrt() + U * mean[c].abs()) * inv_std[c],
            Uses::Running => 0.0,
        };
        let mut local = vec![vec![Facts::default(); mean.len()]; x.len()];
        for (rank, facts) in local.iter_mut().enumerate() {
            for (index, (&x, &g)) in x[rank].values.iter().zip(g[rank].values).enumerate() {
                let channel = problem.x[rank].channel(index);
                let xhat = (x - mean[channel]) * inv_std[channel];
                let of_value = Facts {
                    values: 1.0,
                    max_y: y[rank][index].abs(),
                    max_g: g.abs(),
                    max_xhat: xhat.abs(),
                    sum_g: g.abs(),
                    sum_g_xhat: (g * xhat).abs(),
                };
                facts[channel] = facts[channel].merge(of_value);
            }
        }
        let over_ranks = |c: usize| local.iter().map(|rank| rank[c]).fold(Facts::default(), Facts::merge);
        let group = (0..mean.len()).map(over_ranks).collect();
        let mean_error = (0..mean.len()).map(mean_error).collect();
        Self { uses, inv_std, mean_error, y, gradients: gradients.expect("valid batches"), local, group }
    }

    /// Bound of y before it is stored.
    fn of_y(&self, problem: &Problem, c: usize) -> f64 {
        let facts = self.group[c];
        let weight = problem.weight().map_or(1.0, |weight| f64::from(weight[c]).abs());
        let bias = problem.bias().map_or(0.0, |bias| f64::from(bias[c]).abs());
        let largest = match self.uses {
            Uses::Group => facts.max_y,
            Uses::Running => weight * facts.max_xhat + bias,
        };
        TOLERANCE_ULP * ulp(largest)
    }

    /// Bound of grad_input before it is stored.
    fn of_grad_input(&self, problem: &Problem, c: usize) -> f64 {
        let facts = self.group[c];
        let k = problem.weight().map_or(1.0, |weight| f64::from(weight[c]).abs()) * self.inv_std[c];
        let [g, g_xhat] = [facts.sum_g, facts.sum_g_xhat].map(|sum| sum / facts.values);
        let through_batch = match self.uses {
            Uses::Group => g + facts.max_xhat * g_xhat + self.mean_error[c] * (facts.max_xhat * g + g_xhat),
            Uses::Running => 0.0,
        };
        STATISTICS_TOLERANCE * k * (facts.max_g + through_batch)
    }

    /// The worst error as a share of what is allowed, or what is wrong.
    pub fn compare(&self, problem: &Problem, found: &Pass) -> Result<f64, String> {
        let mut worst = 0f64;
        for (rank, batch) in problem.x.iter().enumerate() {
            let facts = &self.local[rank];
            let mut compare = |name: &str, found: &[f32], expected: &[f64], dtype, bound: &dyn Fn(usize) -> f64| {
                let name = format!("{:?}: {name}[{rank}] of dims {:?}", self.uses, batch.dims);
                compare_values(&name, found, expected, dtype, bound).map(|share| worst = worst.max(share))
            };
            let channel = |index| batch.channel(index);
            let of_y = |index| self.of_y(problem, channel(index));
            compare("y", &found.y[rank], &self.y[rank], problem.types[rank].other, &of_y)?;
            let of_grad_input = |index| self.of_grad_input(problem, channel(index));
            let expected = &self.gradients.grad_inputs[rank];
            compare("grad_inputs", &found.grad_inputs[rank], expected, problem.types[rank].x, &of_grad_input)?;
            if let Some(found) = &found.grad_weights {
                let of_weight = |c: usize| facts[c].sum_g_xhat + self.mean_error[c] * facts[c].sum_g;
                let bound = |c| STATISTICS_TOLERANCE * of_weight(c);
                compare("grad_weights", &found[rank], &self.gradients.grad_weights[rank], DType::F32, &bound)?;
            }
            if let Some(found) = &found.grad_biases {
                let bound = |c: usize| STATISTICS_TOLERANCE * facts[c].sum_g;
                compare("grad_biases", &found[rank], &self.gradients.grad_biases[rank], DType::F32, &bound)?;
            }
        }
        Ok(worst)
    }

    /// How far y may be off at a value of a rank.
    pub fn allowed_y(&self, problem: &Problem, rank: usize, index: usize) -> f64 {
        allowed(self.y[rank][index], self.of_y(problem, problem.x[rank].channel(index)), problem.types[rank].other)
    }
}

fn ranks<'a>(batches: &'a [Batch], values: &'a [Vec<f64>]) -> Vec<RankBatch<'a>> {
    batches.iter().zip(values).map(|(batch, values)| RankBatch { dims: &batch.dims, values }).collect()
}

/// The bound of an f32 and the rounding to the storage type of what may come of it.
fn allowed(expected: f64, bound: f64, dtype: DType) -> f64 {
    bound + half_ulp(expected.abs() + bound, dtype)
}

fn compare_values(
    name: &str,
    found: &[f32],
    expected: &[f64],
    dtype: DType,
    bound: impl Fn(usize) -> f64,
) -> Result<f64, String> {
    if found.len() != expected.len() {
        return Err(format!("{name} has {} values, expected {}", found.len(), expected.len()));
    }
    let mut worst = 0f64;
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let (error, allowed) = ((f64::from(found) - expected).abs(), allowed(expected, bound(index), dtype));
        if error == 0.0 {
            continue;
        }
        // A NaN on either side is not within.
        let within = error <= allowed;
        if !within {
            return Err(format!("{name}, value {index}: {found:e}, expected {expected:e} within {allowed:e}"));
        }
        worst = worst.max(error / allowed);
    }
    Ok(worst)
}
