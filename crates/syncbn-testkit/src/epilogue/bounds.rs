//! Results of a call by the f64 definition, with their bounds.
//!
//! v = normalized (+ residual) is the activation's input. s = act'(v) is the factor of the upstream
//! gradient. The definition is the reference with y = act(v) and g·s in place of g. The gradient of
//! the residual is g·s itself. An output is computed in f32 and then rounded once to its storage
//! type:
//!
//! ```text
//! v              as of `Preactivation`, with 8 ulp (TOLERANCE_ULP); any epilogue rounds it again
//! y              the largest |act'| times the bound of v; of a curve, times 8 half ulp of the
//!                largest |v| besides
//! grad_residual  nothing: g or 0; of a curve, |g| times what its derivative may be off by
//! ```
//!
//! The gradients of bias, weight and input have the bounds of [`syncbn_reference::bounds`], with
//! g·s in place of g.
//!
//! Values read are exact in their storage type, so the bounds do not include their rounding.

mod preactivation;
mod slack;

use syncbn::{DType, Device, config::Activation, low_level::Epilogue};
use syncbn_reference::{self as reference, Gradients};

use syncbn_reference::activation::Activation as Definition;
use syncbn_reference::bounds::{self, Preactivation, Terms};

use super::problem::{Pass, Problem, Uses};
use crate::batch::Batch;
use crate::compare::worst_share;
use crate::oracle::{ranks, wide, widened};
use crate::storage::{Layouts, Types, half_ulp};
use slack::Slack;

/// The activation as it is defined.
pub fn definition(epilogue: Epilogue) -> Definition {
    match epilogue.activation {
        Activation::None => Definition::None,
        Activation::Relu => Definition::Relu,
        Activation::LeakyRelu(slope) => Definition::LeakyRelu(slope.into()),
        Activation::Relu6 => Definition::Relu6,
        Activation::Silu => Definition::Silu,
        Activation::Hardswish => Definition::Hardswish,
        Activation::Gelu => Definition::Gelu,
        Activation::GeluTanh => Definition::GeluTanh,
        Activation::Elu(alpha) => Definition::Elu(alpha.into()),
        other => panic!("the definition of {other:?} is not known here"),
    }
}

/// y of what enters the activation.
pub fn value(epilogue: Epilogue, v: f64) -> f64 {
    definition(epilogue).value(v)
}

/// The factor of the upstream gradient.
pub fn derivative(epilogue: Epilogue, v: f64) -> f64 {
    definition(epilogue).derivative(v)
}

/// The allowed errors of a curve and its derivative, relative to |v| and to the largest derivative.
const CURVE_ERROR: f64 = 8.0 * bounds::HALF_ULP;

/// The definition of one call, with its bounds.
pub struct Expected {
    uses: Uses,
    preactivation: Preactivation,
    /// Upstream gradients behind the activation.
    passed: Vec<Vec<f64>>,
    gradients: Gradients,
    mean_error: Vec<f64>,
    /// Per rank and channel.
    local: Vec<Vec<Terms>>,
    /// Per channel.
    group: Vec<Terms>,
    /// How far the passed gradients may be off, where the activation is a curve.
    slack: Slack,
}

impl Expected {
    pub fn of(problem: &Problem, uses: Uses) -> Self {
        let preactivation = problem.preactivation(uses);
        let Preactivation { mean, var, inv_std, v, .. } = &preactivation;
        let epilogue = problem.epilogue();
        let behind = |(g, v): (&Batch, &Vec<f64>)| {
            let values = g.values.iter().zip(v);
            values.map(|(&g, &v)| f64::from(g) * derivative(epilogue, v)).collect::<Vec<f64>>()
        };
        let passed: Vec<Vec<f64>> = problem.g.iter().zip(v).map(behind).collect();
        let gradients = gradients(problem, uses, &preactivation, &passed);
        let channels = mean.len();
        let mean_error = |c: usize| match uses {
            Uses::Group => bounds::mean_error(mean[c], var[c], inv_std[c]),
            Uses::Running => 0.0,
        };
        let mean_error = (0..channels).map(mean_error).collect();
        let slack = Slack::of(problem, &preactivation);
        let mut local = vec![vec![Terms::default(); channels]; problem.x.len()];
        for (rank, batch) in problem.x.iter().enumerate() {
            for (index, &x) in batch.values.iter().enumerate() {
                let c = batch.channel(index);
                let xhat = (f64::from(x) - mean[c]) * inv_std[c];
                let terms = &mut local[rank][c];
                terms.see(passed[rank][index], xhat);
                terms.see_slack(slack.of[rank][index], xhat);
            }
        }
        let group = (0..channels).map(|c| Terms::of_group(&local, c)).collect();
        Self { uses, preactivation, passed, gradients, mean_error, local, group, slack }
    }

    /// Bound of y before it is stored.
    pub fn of_y(&self, problem: &Problem, c: usize) -> f64 {
        let f = definition(problem.epilogue());
        let of_curve = match problem.epilogue().curve() {
            Some(_) => CURVE_ERROR * self.preactivation.largest[c],
            None => 0.0,
        };
        (self.preactivation.bound[c] + of_curve) * f.steepest()
    }

    /// Bound of grad_input before it is stored.
    pub fn of_grad_input(&self, problem: &Problem, c: usize) -> f64 {
        let weight = problem.weight().map_or(1.0, |weight| f64::from(weight[c]).abs());
        let k = weight * self.preactivation.inv_std[c];
        let mean_error = (self.uses == Uses::Group).then_some(self.mean_error[c]);
        self.group[c].of_input(k, mean_error) + k * self.slack.largest[c]
    }

    /// Bounds of a rank's grad_weight and grad_bias.
    pub fn of_affine(&self, rank: usize, c: usize) -> [f64; 2] {
        let terms = self.local[rank][c];
        [terms.of_weight(self.mean_error[c]), terms.of_bias()]
    }

    /// How far y may be off at a value of a rank, as it is stored.
    pub fn allowed_y(&self, problem: &Problem, rank: usize, index: usize) -> f64 {
        let v = self.preactivation.v[rank][index];
        let y = value(problem.epilogue(), v);
        allowed(y, self.of_y(problem, problem.x[rank].channel(index)), problem.types[rank].other)
    }

    /// The worst error as a share of what is allowed, or what is wrong.
    pub fn compare(&self, problem: &Problem, found: &Pass) -> Result<f64, String> {
        let mut worst = 0f64;
        let epilogue = problem.epilogue();
        for (rank, batch) in problem.x.iter().enumerate() {
            let mut compare = |name: &str,
                               found: &[f32],
                               expected: &[f64],
                               dtype,
                               bound: &dyn Fn(usize) -> f64| {
                let name = format!("{:?}: {name}[{rank}] of dims {:?}", self.uses, batch.dims);
                worst_share(&name, found, expected, |index| {
                    allowed(expected[index], bound(index), dtype)
                })
                .map(|share| worst = worst.max(share))
            };
            let Types { x, other } = problem.types[rank];
            let of_y = |index| self.of_y(problem, batch.channel(index));
            let v = self.preactivation.v[rank].iter();
            let y: Vec<f64> = v.map(|&v| value(epilogue, v)).collect();
            compare("y", &found.y[rank], &y, other, &of_y)?;
            let of_grad_input = |index| self.of_grad_input(problem, batch.channel(index));
            compare(
                "grad_inputs",
                &found.grad_inputs[rank],
                &self.gradients.grad_inputs[rank],
                x,
                &of_grad_input,
            )?;
            if let Some(found) = &found.grad_residuals {
                let slack = |index: usize| self.slack.of[rank][index];
                compare("grad_residuals", &found[rank], &self.passed[rank], x, &slack)?;
            }
            if let Some(found) = &found.grad_weights {
                let bound = |c| self.of_affine(rank, c)[0];
                compare(
                    "grad_weights",
                    &found[rank],
                    &self.gradients.grad_weights[rank],
                    DType::F32,
                    &bound,
                )?;
            }
            if let Some(found) = &found.grad_biases {
                let bound = |c| self.of_affine(rank, c)[1];
                compare(
                    "grad_biases",
                    &found[rank],
                    &self.gradients.grad_biases[rank],
                    DType::F32,
                    &bound,
                )?;
            }
        }
        Ok(worst)
    }
}

/// The worst error of evaluation and training as a share of what is allowed, or what is wrong.
pub fn check(problem: &Problem, devices: Vec<Device>, layouts: &[Layouts]) -> Result<f64, String> {
    let passes = problem.run(devices, layouts).map_err(|error| error.to_string())?;
    let shares = passes.map(|(uses, pass)| Expected::of(problem, uses).compare(problem, &pass));
    shares.into_iter().try_fold(0f64, |worst, share| Ok(worst.max(share?)))
}

/// The gradients of the definition for upstream gradients that have passed the activation.
pub fn gradients(
    problem: &Problem,
    uses: Uses,
    preactivation: &Preactivation,
    passed: &[Vec<f64>],
) -> Gradients {
    let values = wide(&problem.x);
    let x = ranks(&problem.x, &values);
    let g = ranks(&problem.x, passed);
    let weight = problem.weight().map(widened);
    let weight = weight.as_deref();
    let eps = problem.config.eps;
    match uses {
        Uses::Group => reference::backward_train(&x, &g, weight, eps),
        Uses::Running => {
            let Preactivation { mean, var, .. } = preactivation;
            reference::backward_with_statistics(&x, &g, mean, var, weight, eps)
        }
    }
    .expect("valid batches")
}

/// The bound of an f32, plus the rounding of the value to its storage type.
fn allowed(expected: f64, bound: f64, dtype: DType) -> f64 {
    bound + half_ulp(expected.abs() + bound, dtype)
}
