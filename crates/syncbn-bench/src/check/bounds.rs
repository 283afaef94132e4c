//! Owns the outputs of the passes by the definition, and their bounds.
//!
//! v = normalized (+ residual) is the activation's input. g is the upstream gradient of its output.
//! v and the gradients have the bounds of [`syncbn_reference::bounds`]; the addition of a residual
//! rounds v again. As in the tests of the library, an output is computed in f32 and then rounded to
//! its storage type.
//!
//! If |v| is within its bound, either sign of v is right. The gradients of such a value are not
//! compared, and it widens the bound of a sum by its |g|.

use syncbn_reference::bounds::{self, Call, Preactivation, Statistics, Terms};
use syncbn_reference::{self as reference, Affine, RankBatch, ReferenceError};
use syncbn_testkit::storage::half_ulp;

use crate::inputs::Form;

/// A value and its bound.
#[derive(Clone, Copy, Debug)]
pub struct Bounded {
    pub value: f64,
    pub allowed: f64,
}

/// Inputs of a call: for each rank the values as (N, channels, L), and lists of channels.
pub struct Problem {
    pub dims: Vec<[usize; 3]>,
    pub x: Vec<Vec<f64>>,
    pub residuals: Option<Vec<Vec<f64>>>,
    pub grad_outputs: Vec<Vec<f64>>,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
    pub eps: f64,
    pub form: Form,
    /// Ulps of the largest |normalized| that v may be off.
    pub ulps: f64,
}

impl Problem {
    fn ranks<'a>(&'a self, values: &'a [Vec<f64>]) -> Vec<RankBatch<'a>> {
        self.dims.iter().zip(values).map(|(dims, values)| RankBatch { dims, values }).collect()
    }

    fn channel(&self, rank: usize, index: usize) -> usize {
        let [_, channels, positions] = self.dims[rank];
        index / positions % channels
    }

    /// A bound for every value of every rank, from the value and its channel.
    fn bounded(
        &self,
        values: &[Vec<f64>],
        allowed: impl Fn(usize, usize, usize) -> f64,
    ) -> Vec<Vec<Bounded>> {
        let of_rank = |(rank, values): (usize, &Vec<f64>)| {
            let bounded = values.iter().enumerate().map(|(index, &value)| {
                let allowed = allowed(rank, index, self.channel(rank, index));
                Bounded {
                    value,
                    allowed: allowed + half_ulp(value.abs() + allowed, self.form.dtype),
                }
            });
            bounded.collect()
        };
        values.iter().enumerate().map(of_rank).collect()
    }
}

/// The definition with given statistics.
pub struct Definition<'a> {
    problem: &'a Problem,
    preactivation: Preactivation,
}

impl<'a> Definition<'a> {
    /// Training: the statistics are those of the group's batch.
    pub fn of_batch(problem: &'a Problem) -> Result<Self, ReferenceError> {
        Self::new(problem, Statistics::OfBatch)
    }

    /// Evaluation: the running statistics.
    pub fn of_running(
        problem: &'a Problem,
        mean: &[f64],
        var: &[f64],
    ) -> Result<Self, ReferenceError> {
        Self::new(problem, Statistics::Given { mean, var })
    }

    fn new(problem: &'a Problem, statistics: Statistics<'_>) -> Result<Self, ReferenceError> {
        let inputs = problem.ranks(&problem.x);
        let preactivation = Preactivation::of(&Call {
            inputs: &inputs,
            residuals: problem.residuals.as_deref(),
            statistics,
            affine: Affine { weight: Some(&problem.weight), bias: Some(&problem.bias) },
            eps: problem.eps,
            ulps: problem.ulps,
            rounds_again: problem.residuals.is_some(),
        })?;
        Ok(Self { problem, preactivation })
    }

    /// The output.
    pub fn y(&self) -> Vec<Vec<Bounded>> {
        let activates = self.problem.form.epilogue.activates();
        let y = |v: &f64| if activates { v.max(0.0) } else { *v };
        let v = self.preactivation.v.iter();
        let y: Vec<Vec<f64>> = v.map(|v| v.iter().map(y).collect()).collect();
        self.problem.bounded(&y, |_, _, c| self.preactivation.bound[c])
    }

    /// Whether either sign is right for a value.
    fn is_open(&self, rank: usize, index: usize) -> bool {
        let Preactivation { v, bound, .. } = &self.preactivation;
        let c = self.problem.channel(rank, index);
        self.problem.form.epilogue.activates() && v[rank][index].abs() <= bound[c]
    }

    /// The upstream gradients behind the activation.
    fn passed(&self) -> Vec<Vec<f64>> {
        let activates = self.problem.form.epilogue.activates();
        let pass = |(&g, &v): (&f64, &f64)| if activates && v <= 0.0 { 0.0 } else { g };
        let ranks = self.problem.grad_outputs.iter().zip(&self.preactivation.v);
        ranks.map(|(g, v)| g.iter().zip(v).map(pass).collect()).collect()
    }

    /// The gradient of the residual: the gradient of the activation's input, bit for bit.
    pub fn grad_residuals(&self) -> Vec<Vec<Bounded>> {
        let exact = |(rank, passed): (usize, Vec<f64>)| {
            let allowed = |index| if self.is_open(rank, index) { f64::INFINITY } else { 0.0 };
            passed
                .iter()
                .enumerate()
                .map(|(index, &value)| Bounded { value, allowed: allowed(index) })
                .collect()
        };
        self.passed().into_iter().enumerate().map(exact).collect()
    }

    /// The gradient of the input.
    pub fn grad_inputs(&self) -> Result<Vec<Vec<Bounded>>, ReferenceError> {
        let problem = self.problem;
        let local = self.terms();
        let allowed = |c: usize| {
            let k = problem.weight[c].abs() * self.preactivation.inv_std[c];
            Terms::of_group(&local, c).of_input(k, Some(self.mean_error(c)))
        };
        let allowed: Vec<f64> = (0..problem.weight.len()).map(allowed).collect();
        let values = self.gradients()?.grad_inputs;
        Ok(problem.bounded(
            &values,
            |rank, i, c| if self.is_open(rank, i) { f64::INFINITY } else { allowed[c] },
        ))
    }

    /// The gradients of weight and bias, of every rank.
    pub fn parameter_gradients(&self) -> Result<[Vec<Vec<Bounded>>; 2], ReferenceError> {
        let gradients = self.gradients()?;
        let local = self.terms();
        let of_ranks = |values: Vec<Vec<f64>>, allowed: &dyn Fn(usize, Terms) -> f64| {
            let of_rank = |(values, terms): (Vec<f64>, &Vec<Terms>)| {
                let pairs = values.into_iter().zip(terms).enumerate();
                pairs
                    .map(|(c, (value, terms))| Bounded { value, allowed: allowed(c, *terms) })
                    .collect()
            };
            values.into_iter().zip(&local).map(of_rank).collect::<Vec<Vec<Bounded>>>()
        };
        let of_weight = |c: usize, terms: Terms| terms.of_weight(self.mean_error(c));
        let of_bias = |_, terms: Terms| terms.of_bias();
        Ok([
            of_ranks(gradients.grad_weights, &of_weight),
            of_ranks(gradients.grad_biases, &of_bias),
        ])
    }

    fn gradients(&self) -> Result<reference::Gradients, ReferenceError> {
        let problem = self.problem;
        let passed = self.passed();
        let x = problem.ranks(&problem.x);
        let g = problem.ranks(&passed);
        reference::backward_train(&x, &g, Some(&problem.weight), problem.eps)
    }

    /// e.
    fn mean_error(&self, c: usize) -> f64 {
        let Preactivation { mean, var, inv_std, .. } = &self.preactivation;
        bounds::mean_error(mean[c], var[c], inv_std[c])
    }

    /// Of every rank and channel.
    fn terms(&self) -> Vec<Vec<Terms>> {
        let Preactivation { mean, inv_std, .. } = &self.preactivation;
        let passed = self.passed();
        let mut terms = vec![vec![Terms::default(); mean.len()]; passed.len()];
        for (rank, x) in self.problem.x.iter().enumerate() {
            for (index, x) in x.iter().enumerate() {
                let c = self.problem.channel(rank, index);
                let xhat = (x - mean[c]) * inv_std[c];
                let terms = &mut terms[rank][c];
                terms.see(passed[rank][index], xhat);
                if self.is_open(rank, index) {
                    terms.see_slack(self.problem.grad_outputs[rank][index].abs(), xhat);
                }
            }
        }
        terms
    }
}
