//! Whether gradients are those of the definition, within what rounding explains.
//!
//! With k = |weight|·inv_std, x̂ = (x − mean)·inv_std, and ⟨·⟩ the average of absolute values over
//! what the statistics were taken of, the terms that are rounded on the way to a gradient are at
//! most as large as
//!
//! ```text
//! grad_bias    Σ|g|
//! grad_weight  Σ|g·x̂| + s·Σ|g|                the second is what an error of the mean moves in x̂, times g
//! grad_input   k·( max|g| + ⟨g⟩ + max|x̂|·⟨g·x̂⟩   g, A/N, and (x − mean)·inv_std²·B/N
//!                  + s·(max|x̂|·⟨g⟩ + ⟨g·x̂⟩) )   what an error of the mean moves in B and in x − mean
//! ```
//!
//! Each of them passes through a few dozen roundings of random sign, as statistics do (the longest
//! way: both deviations from the mean, 16 values of an invocation, 16 and 16 lanes, batches of
//! tiles, inv_std², the product): the tolerance is [`STATISTICS_TOLERANCE`] of the sum of the
//! terms. s is deviation·inv_std for the error of the batch's mean, and u·|mean|·inv_std for what
//! one f32 cannot hold of it, with u = 2⁻²⁴; 0 with running statistics, which are exact.

use syncbn::stats::{BackwardReport, GlobalGradientSums, GradientSums};
use syncbn_reference::{self as reference, Gradients};

use super::common::worst_share;
use super::common::*;
use super::problem::{Found, Problem, Uses, with_ranks};
use syncbn::config::AffineGradient;

/// Half an ulp of 1 in f32.
const U: f64 = 1.0 / (1u64 << 24) as f64;
/// What the tolerances of one channel depend on, over one rank or over the group.
#[derive(Clone, Copy, Default)]
struct Facts {
    values: f64,
    max_g: f64,
    max_xhat: f64,
    sum_g: f64,
    sum_g_xhat: f64,
}

impl Facts {
    fn see(&mut self, g: f64, xhat: f64) {
        self.values += 1.0;
        self.max_g = self.max_g.max(g.abs());
        self.max_xhat = self.max_xhat.max(xhat.abs());
        self.sum_g += g.abs();
        self.sum_g_xhat += (g * xhat).abs();
    }

    fn merge(self, other: Self) -> Self {
        Self {
            values: self.values + other.values,
            max_g: self.max_g.max(other.max_g),
            max_xhat: self.max_xhat.max(other.max_xhat),
            sum_g: self.sum_g + other.sum_g,
            sum_g_xhat: self.sum_g_xhat + other.sum_g_xhat,
        }
    }
}

/// Statistics that normalized, and what may be wrong with their mean.
struct Statistics {
    mean: Vec<f64>,
    inv_std: Vec<f64>,
    /// s of the file's head.
    mean_error: Vec<f64>,
}

impl Statistics {
    fn of(problem: &Problem, uses: Uses, rank: usize) -> Self {
        let eps = problem.config.eps;
        let batch = |batches: &[Batch]| {
            with_ranks(batches, |ranks| reference::batch_statistics(ranks).unwrap())
        };
        let inv_std = |var: &f64| if var + eps == 0.0 { 0.0 } else { 1.0 / (var + eps).sqrt() };
        let statistics = match uses {
            Uses::Group => batch(&problem.batches),
            Uses::Local => batch(&problem.batches[rank..=rank]),
            Uses::Running => {
                let var = widened(&problem.running.var);
                let inv_std = var.iter().map(inv_std).collect();
                return Self {
                    mean: widened(&problem.running.mean),
                    inv_std,
                    mean_error: vec![0.0; var.len()],
                };
            }
        };
        let inv_std: Vec<f64> = statistics.var_biased.iter().map(inv_std).collect();
        let error = |c: usize| {
            (statistics.var_biased[c].sqrt() + U * statistics.mean[c].abs()) * inv_std[c]
        };
        Self { mean_error: (0..inv_std.len()).map(error).collect(), mean: statistics.mean, inv_std }
    }

    fn facts(&self, batch: &Batch, grad_output: &Batch) -> Vec<Facts> {
        let mut facts = vec![Facts::default(); self.mean.len()];
        for (index, (&x, &g)) in batch.values.iter().zip(&grad_output.values).enumerate() {
            let channel = batch.channel(index);
            let xhat = (f64::from(x) - self.mean[channel]) * self.inv_std[channel];
            facts[channel].see(g.into(), xhat);
        }
        facts
    }
}

/// The worst error as a share of its tolerance, or what is wrong.
pub fn compare_gradients(
    problem: &Problem,
    uses: Uses,
    found: &Found,
    expected: &Gradients,
) -> Result<f64, String> {
    let ranks = problem.batches.len();
    let statistics: Vec<Statistics> =
        (0..ranks).map(|rank| Statistics::of(problem, uses, rank)).collect();
    let pairs = problem.batches.iter().zip(&problem.grad_outputs).zip(&statistics);
    let local: Vec<Vec<Facts>> =
        pairs.map(|((batch, g), statistics)| statistics.facts(batch, g)).collect();
    let whole = (0..problem.channels())
        .map(|c| local.iter().map(|rank| rank[c]).fold(Facts::default(), Facts::merge));
    let whole: Vec<Facts> = whole.collect();
    let shared = uses == Uses::Group && problem.config.affine_gradient != AffineGradient::Local;
    let divisor = if problem.config.affine_gradient == AffineGradient::GroupMean && shared {
        ranks as f64
    } else {
        1.0
    };

    let mut worst = 0f64;
    for rank in 0..ranks {
        let Statistics { inv_std, mean_error, .. } = &statistics[rank];
        let of_input = |c: usize| {
            // Local statistics depend on the rank's own values alone.
            let facts = if uses == Uses::Group { whole[c] } else { local[rank][c] };
            let k = problem.weight().map_or(1.0, |weight| f64::from(weight[c]).abs()) * inv_std[c];
            let [g, g_xhat] = [facts.sum_g, facts.sum_g_xhat].map(|sum| sum / facts.values);
            let through_batch =
                g + facts.max_xhat * g_xhat + mean_error[c] * (facts.max_xhat * g + g_xhat);
            STATISTICS_TOLERANCE
                * k
                * (facts.max_g + if uses == Uses::Running { 0.0 } else { through_batch })
        };
        let batch = &problem.batches[rank];
        let channel = |index| batch.channel(index);
        let share = worst_share(
            &format!("grad_inputs[{rank}] of dims {:?}", batch.dims),
            &found.grad_inputs[rank],
            &expected.grad_inputs[rank],
            |index| of_input(channel(index)),
        )?;
        worst = worst.max(share);

        let affine = if shared { &whole } else { &local[rank] };
        let of_weight = |c: usize| {
            STATISTICS_TOLERANCE * (affine[c].sum_g_xhat + mean_error[c] * affine[c].sum_g)
                / divisor
        };
        let of_bias = |c: usize| STATISTICS_TOLERANCE * affine[c].sum_g / divisor;
        if let Some(found) = &found.grad_weights {
            let name = format!("grad_weights[{rank}]");
            worst = worst.max(worst_share(
                &name,
                &found[rank],
                &expected.grad_weights[rank],
                of_weight,
            )?);
        }
        if let Some(found) = &found.grad_biases {
            let name = format!("grad_biases[{rank}]");
            worst =
                worst.max(worst_share(&name, &found[rank], &expected.grad_biases[rank], of_bias)?);
        }
    }
    Ok(worst)
}

/// Whether the report adds up: the group's sums are the sum of the ranks', and they are the
/// gradients of weight and bias.
pub fn check_report(
    problem: &Problem,
    uses: Uses,
    report: &BackwardReport,
    found: &Found,
) -> Result<(), String> {
    let (ranks, channels) = (problem.batches.len(), problem.channels());
    let local = report.local.ranks();
    if local.len() != ranks || local.iter().any(|rank| rank.len() != channels) {
        return Err("the report does not hold one sum per rank and channel".to_owned());
    }
    let global = report.global.as_ref().map(GlobalGradientSums::channels);
    if global.map(<[_]>::len) != (uses == Uses::Group).then_some(channels) {
        return Err(format!("the report holds {global:?} as sums of the group"));
    }
    for (channel, global) in global.into_iter().flatten().enumerate() {
        let sum = local.iter().fold(GradientSums::EMPTY, |sum, rank| sum.merge(rank[channel]));
        let size: f64 = local.iter().map(|rank| rank[channel].sum_dy.abs()).sum();
        let error = (global.sum_dy - sum.sum_dy).abs();
        let within = error <= 1e-12 * size;
        if !within {
            return Err(format!("channel {channel}: {global:?} is not the ranks' sum {sum:?}"));
        }
    }
    if let Some(biases) = &found.grad_biases
        && problem.config.affine_gradient == AffineGradient::Local
    {
        for (rank, local) in local.iter().enumerate() {
            let sums: Vec<f32> = local.iter().map(|sums| sums.sum_dy as f32).collect();
            if bits(&[sums]) != bits(&biases[rank..=rank]) {
                return Err(format!("grad_biases[{rank}] is not the report's sum_dy"));
            }
        }
    }
    Ok(())
}
