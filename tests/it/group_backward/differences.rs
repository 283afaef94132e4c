//! Gradients against central differences of the f64 definition of forward: no formula of a gradient
//! is involved.
//!
//! The loss is L = Σ u·y with a random u, whose gradient is not zero as that of the plain sum would
//! be. With a step h the truncation is h²/6·L‴ and the rounding 1e-16·L/h; at h = 1e-5 and values
//! near 1 both are about 1e-10, far below the tolerances of f32.

use approx::abs_diff_eq;
use pollster::block_on;
use syncbn::{Backward, BatchNormConfig, Error, Normalized, SyncBatchNorm, Tensor};
use syncbn_reference::{self as reference, Affine, Gradients, RankBatch};

use super::common::*;
use super::compare::compare_gradients;
use super::problem::{Found, Problem, Uses};

const STEP: f64 = 1e-5;

/// What the loss depends on, in f64.
#[derive(Clone)]
struct Point {
    inputs: Vec<Vec<f64>>,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Point {
    fn of(problem: &Problem) -> Self {
        let inputs = problem.batches.iter().map(|batch| widened(&batch.values)).collect();
        Self {
            inputs,
            weight: widened(&problem.parameters.weight),
            bias: widened(&problem.parameters.bias),
        }
    }

    /// Σ u·y over each rank's own outputs.
    fn losses(&self, problem: &Problem, uses: Uses) -> Vec<f64> {
        let dims = problem.batches.iter().map(|batch| batch.dims.as_slice());
        let ranks: Vec<RankBatch<'_>> =
            dims.zip(&self.inputs).map(|(dims, values)| RankBatch { dims, values }).collect();
        let affine = Affine { weight: Some(&self.weight), bias: Some(&self.bias) };
        let eps = problem.config.eps;
        let outputs: Vec<Vec<f64>> = match uses {
            Uses::Group => reference::forward_train(&ranks, affine, eps).unwrap().outputs,
            Uses::Running => {
                let mean = widened(&problem.running.mean);
                let var = widened(&problem.running.var);
                reference::forward_with_statistics(&ranks, &mean, &var, affine, eps).unwrap()
            }
            Uses::Local => {
                let one = |rank| {
                    reference::forward_train(std::slice::from_ref(rank), affine, eps)
                        .unwrap()
                        .outputs
                };
                ranks.iter().flat_map(one).collect()
            }
        };
        let loss = |(y, u): (&Vec<f64>, &Batch)| {
            y.iter().zip(&u.values).map(|(y, &u)| y * f64::from(u)).sum()
        };
        outputs.iter().zip(&problem.grad_outputs).map(loss).collect()
    }
}

/// The slope of every rank's loss along one coordinate.
fn slopes(problem: &Problem, uses: Uses, coordinate: impl Fn(&mut Point) -> &mut f64) -> Vec<f64> {
    let at = |by: f64| {
        let mut point = Point::of(problem);
        *coordinate(&mut point) += by;
        point.losses(problem, uses)
    };
    at(STEP).iter().zip(at(-STEP)).map(|(above, below)| (above - below) / (2.0 * STEP)).collect()
}

/// All gradients by differences; those of weight and bias of each rank's own loss.
fn by_differences(problem: &Problem, uses: Uses) -> Gradients {
    let ranks = 0..problem.batches.len();
    let grad_input = |rank: usize| {
        let indices = 0..problem.batches[rank].values.len();
        indices
            .map(|i| slopes(problem, uses, |point| &mut point.inputs[rank][i]).iter().sum())
            .collect()
    };
    let by_rank = |of: &dyn Fn(usize) -> Vec<f64>| {
        let channels: Vec<Vec<f64>> = (0..problem.channels()).map(of).collect();
        ranks.clone().map(|rank| channels.iter().map(|slopes| slopes[rank]).collect()).collect()
    };
    Gradients {
        grad_inputs: ranks.clone().map(grad_input).collect(),
        grad_weights: by_rank(&|c| slopes(problem, uses, |point| &mut point.weight[c])),
        grad_biases: by_rank(&|c| slopes(problem, uses, |point| &mut point.bias[c])),
    }
}

fn problem(eps: f64, seed: u64) -> Problem {
    let mut problem = Problem::random(&[&[3, 2, 2, 2], &[2, 2, 5], &[0, 2], &[1, 2, 3]], seed);
    problem.config = problem.config.with_eps(eps);
    problem
}

fn forward(
    layer: &SyncBatchNorm,
    x: &[Tensor],
    train: bool,
) -> Result<Normalized<Vec<Tensor>>, Error> {
    block_on(async {
        if train { layer.forward_train(x).await } else { layer.forward_eval(x).await }
    })
}

#[test]
fn every_gradient_is_the_slope_of_the_loss() {
    let rows =
        [(true, true, Uses::Group), (false, true, Uses::Running), (false, false, Uses::Local)];
    let mut worst = 0f64;
    for (seed, eps) in [(200, 1e-5), (201, 0.5), (202, 0.0)] {
        for (train, track, uses) in rows {
            let mut problem = problem(eps, seed);
            problem.config = problem.config.with_track_running_stats(track);
            if uses == Uses::Local {
                // The definition of forward takes no batch without a value.
                for ranks in [&mut problem.batches, &mut problem.grad_outputs] {
                    ranks.remove(2);
                }
            }
            let expected = by_differences(&problem, uses);
            for kind in Kind::ALL {
                let layer = problem.layer(kind);
                let x = problem.inputs(&layer);
                let g = problem.upstream(&layer);
                let saved = forward(&layer, &x, train).unwrap().saved;
                let found =
                    Found::read(&block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap());
                let share =
                    compare_gradients(&problem, uses, &found, &expected).unwrap_or_else(|error| {
                        panic!("seed {seed}, eps {eps}, {uses:?}, {kind:?}: {error}")
                    });
                worst = worst.max(share);
            }
        }
    }
    println!("worst error {worst:.3} of the tolerance");
}

#[test]
fn the_definition_s_own_gradients_are_the_slopes_of_its_forward() {
    // Without the rounding of f32: what is left is that of the differences.
    let problem = problem(1e-5, 203);
    for uses in [Uses::Group, Uses::Running] {
        let slopes = by_differences(&problem, uses);
        let gradients = problem.definition(uses);
        let pairs = [
            (&slopes.grad_inputs, &gradients.grad_inputs),
            (&slopes.grad_weights, &gradients.grad_weights),
            (&slopes.grad_biases, &gradients.grad_biases),
        ];
        for (found, expected) in pairs {
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                assert!(
                    abs_diff_eq!(found, expected, epsilon = 1e-8),
                    "{uses:?}: {found}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn a_loss_that_is_the_plain_sum_of_the_output_would_show_nothing() {
    // Σy is constant under the batch's statistics: its gradient is 0 up to rounding, whatever the
    // code does.
    let mut problem = problem(1e-5, 204);
    problem.config = BatchNormConfig::torch(2);
    for g in &mut problem.grad_outputs {
        g.values.fill(1.0);
    }
    let slopes = by_differences(&problem, Uses::Group);
    assert!(slopes.grad_inputs.iter().flatten().all(|slope| abs_diff_eq!(
        *slope,
        0.0,
        epsilon = 1e-8
    )));
}
