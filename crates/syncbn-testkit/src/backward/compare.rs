//! Whether gradients are those of the definition, within what rounding explains
//! (`syncbn_reference::bounds`).

use syncbn::config::AffineGradient;
use syncbn::stats::{BackwardReport, GlobalGradientSums, GradientSums};
use syncbn_reference::bounds::{self, Terms};
use syncbn_reference::{self as reference, Gradients};

use super::problem::{Found, Problem, Uses};
use crate::batch::{Batch, bits, read};
use crate::compare::{TOLERANCE_ULP, compare, worst_share};
use crate::oracle::{definition, widened, with_ranks};
use crate::placement::Placement;

/// Statistics that normalized, and what may be wrong with their mean.
struct Statistics {
    mean: Vec<f64>,
    inv_std: Vec<f64>,
    /// e of the bounds.
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
        let error =
            |c: usize| bounds::mean_error(statistics.mean[c], statistics.var_biased[c], inv_std[c]);
        Self { mean_error: (0..inv_std.len()).map(error).collect(), mean: statistics.mean, inv_std }
    }

    fn terms(&self, batch: &Batch, grad_output: &Batch) -> Vec<Terms> {
        let mut terms = vec![Terms::default(); self.mean.len()];
        for (index, (&x, &g)) in batch.values.iter().zip(&grad_output.values).enumerate() {
            let channel = batch.channel(index);
            let xhat = (f64::from(x) - self.mean[channel]) * self.inv_std[channel];
            terms[channel].see(g.into(), xhat);
        }
        terms
    }
}

/// A training step compared with the definition, y included; the worst error of a gradient as a
/// share of its tolerance.
pub fn check(on: impl Placement, problem: &Problem) -> Result<f64, String> {
    let (forward, backward) = problem.train(on).map_err(|error| error.to_string())?;
    let y = definition(&problem.batches, Some(&problem.parameters), problem.config.eps).outputs;
    compare(&problem.batches, &read(&forward.output), &y, TOLERANCE_ULP)?;
    for (grad_input, batch) in backward.input.iter().zip(&problem.batches) {
        assert_eq!(grad_input.dims(), batch.dims);
    }
    let found = Found::read(&backward);
    check_report(problem, Uses::Group, backward.report.as_ref().unwrap(), &found)?;
    compare_gradients(problem, Uses::Group, &found, &problem.definition(Uses::Group))
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
    let local: Vec<Vec<Terms>> =
        pairs.map(|((batch, g), statistics)| statistics.terms(batch, g)).collect();
    let whole: Vec<Terms> = (0..problem.channels()).map(|c| Terms::of_group(&local, c)).collect();
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
            let terms = if uses == Uses::Group { whole[c] } else { local[rank][c] };
            let k = problem.weight().map_or(1.0, |weight| f64::from(weight[c]).abs()) * inv_std[c];
            terms.of_input(k, (uses != Uses::Running).then_some(mean_error[c]))
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
        let of_weight = |c: usize| affine[c].of_weight(mean_error[c]) / divisor;
        let of_bias = |c: usize| affine[c].of_bias() / divisor;
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
    let ranks = problem.batches.len();
    let channels = problem.channels();
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
