//! Owns the outputs of the passes by the definition, and their bounds.
//!
//! v = normalized (+ residual) is the activation's input. g is the upstream gradient of its output.
//! As in the tests of the library, an output is computed in f32 and then rounded to its storage
//! type:
//!
//! ```text
//! v            8 ulp of the channel's largest |normalized|, or with running statistics of the sum
//!              of the largest |weight·x̂| and |bias|; one ulp of the largest |v| for the addition
//!              of the residual
//! ```
//!
//! The gradients have the bounds of [`syncbn_reference::bounds`].
//!
//! If |v| is within its bound, either sign of v is right. The gradients of such a value are not
//! compared, and its contribution widens the bound of a sum.

use syncbn::DType;
use syncbn_reference::bounds::{self, Terms, half_place, ulp};
use syncbn_reference::{self as reference, Affine, RankBatch, ReferenceError};

use crate::inputs::Form;

/// Ulps of the largest |normalized|, where statistics merge in f64.
pub const ULPS: f64 = 8.0;

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

/// The facts that the bounds of a channel depend on.
#[derive(Clone, Copy, Default)]
struct Facts {
    terms: Terms,
    /// Sums of |g| and |g·x̂| over the values whose sign is open.
    open_g: f64,
    open_g_xhat: f64,
}

impl Facts {
    fn merge(self, other: Self) -> Self {
        Self {
            terms: self.terms.merge(other.terms),
            open_g: self.open_g + other.open_g,
            open_g_xhat: self.open_g_xhat + other.open_g_xhat,
        }
    }
}

/// The definition with given statistics.
pub struct Definition<'a> {
    problem: &'a Problem,
    mean: Vec<f64>,
    var: Vec<f64>,
    inv_std: Vec<f64>,
    /// The activation's input.
    v: Vec<Vec<f64>>,
    /// Bound of v, per channel.
    of_v: Vec<f64>,
}

impl<'a> Definition<'a> {
    /// Training: the statistics are those of the group's batch.
    pub fn of_batch(problem: &'a Problem) -> Result<Self, ReferenceError> {
        let statistics = reference::batch_statistics(&problem.ranks(&problem.x))?;
        // |bias| and |weight·x̂| are within twice the largest |normalized| there, which the ulps
        // account for.
        Self::new(problem, statistics.mean, statistics.var_biased, |normalized, _, _| {
            normalized.abs()
        })
    }

    /// Evaluation: the running statistics.
    pub fn of_running(
        problem: &'a Problem,
        mean: &[f64],
        var: &[f64],
    ) -> Result<Self, ReferenceError> {
        let terms = |_, scaled: f64, bias: f64| scaled.abs() + bias.abs();
        Self::new(problem, mean.to_vec(), var.to_vec(), terms)
    }

    fn new(
        problem: &'a Problem,
        mean: Vec<f64>,
        var: Vec<f64>,
        size: impl Fn(f64, f64, f64) -> f64,
    ) -> Result<Self, ReferenceError> {
        let affine = Affine { weight: Some(&problem.weight), bias: Some(&problem.bias) };
        let ranks = problem.ranks(&problem.x);
        let mut v = reference::forward_with_statistics(&ranks, &mean, &var, affine, problem.eps)?;
        let inv_std = var.iter().map(|var| 1.0 / (var + problem.eps).sqrt()).collect();
        let channels = mean.len();
        let largest = |values: &[Vec<f64>], size: &dyn Fn(f64, f64) -> f64| {
            let mut largest = vec![0f64; channels];
            for (rank, values) in values.iter().enumerate() {
                for (index, &value) in values.iter().enumerate() {
                    let c = problem.channel(rank, index);
                    largest[c] = largest[c].max(size(value, problem.bias[c]));
                }
            }
            largest
        };
        let normalized = largest(&v, &|value, bias| size(value, value - bias, bias));
        let mut of_v: Vec<f64> =
            normalized.iter().map(|&largest| problem.ulps * ulp(largest)).collect();
        for (v, residual) in v.iter_mut().zip(problem.residuals.iter().flatten()) {
            v.iter_mut().zip(residual).for_each(|(v, residual)| *v += residual);
        }
        if problem.residuals.is_some() {
            of_v.iter_mut()
                .zip(largest(&v, &|v, _| v.abs()))
                .for_each(|(bound, largest)| *bound += ulp(largest));
        }
        Ok(Self { problem, mean, var, inv_std, v, of_v })
    }

    /// The output.
    pub fn y(&self) -> Vec<Vec<Bounded>> {
        let activates = self.problem.form.epilogue.activates();
        let y = |v: &f64| if activates { v.max(0.0) } else { *v };
        let y: Vec<Vec<f64>> = self.v.iter().map(|v| v.iter().map(y).collect()).collect();
        self.problem.bounded(&y, |_, _, c| self.of_v[c])
    }

    /// Whether either sign is right for a value.
    fn is_open(&self, rank: usize, index: usize) -> bool {
        let c = self.problem.channel(rank, index);
        self.problem.form.epilogue.activates() && self.v[rank][index].abs() <= self.of_v[c]
    }

    /// The upstream gradients behind the activation.
    fn passed(&self) -> Vec<Vec<f64>> {
        let activates = self.problem.form.epilogue.activates();
        let pass = |(&g, &v): (&f64, &f64)| if activates && v <= 0.0 { 0.0 } else { g };
        let ranks = self.problem.grad_outputs.iter().zip(&self.v);
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
        let facts = self.facts();
        let group =
            |c: usize| facts.iter().map(|rank| rank[c]).fold(Facts::default(), Facts::merge);
        let allowed: Vec<f64> =
            (0..self.mean.len()).map(|c| self.of_grad_input(c, group(c))).collect();
        let values = self.gradients()?.grad_inputs;
        Ok(problem.bounded(
            &values,
            |rank, i, c| if self.is_open(rank, i) { f64::INFINITY } else { allowed[c] },
        ))
    }

    fn of_grad_input(&self, c: usize, Facts { terms, open_g, open_g_xhat }: Facts) -> f64 {
        let k = self.problem.weight[c].abs() * self.inv_std[c];
        let open = (open_g + terms.max_xhat * open_g_xhat) / terms.values;
        terms.of_input(k, Some(self.mean_error(c))) + k * open
    }

    /// The gradients of weight and bias, of every rank.
    pub fn parameter_gradients(&self) -> Result<[Vec<Vec<Bounded>>; 2], ReferenceError> {
        let gradients = self.gradients()?;
        let facts = self.facts();
        let of_ranks = |values: Vec<Vec<f64>>, allowed: &dyn Fn(usize, Facts) -> f64| {
            let of_rank = |(values, facts): (Vec<f64>, &Vec<Facts>)| {
                let pairs = values.into_iter().zip(facts).enumerate();
                pairs
                    .map(|(c, (value, facts))| Bounded { value, allowed: allowed(c, *facts) })
                    .collect()
            };
            values.into_iter().zip(&facts).map(of_rank).collect::<Vec<Vec<Bounded>>>()
        };
        let of_weight =
            |c: usize, facts: Facts| facts.terms.of_weight(self.mean_error(c)) + facts.open_g_xhat;
        let of_bias = |_, facts: Facts| facts.terms.of_bias() + facts.open_g;
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
        bounds::mean_error(self.mean[c], self.var[c], self.inv_std[c])
    }

    /// Of every rank and channel.
    fn facts(&self) -> Vec<Vec<Facts>> {
        let passed = self.passed();
        let mut facts = vec![vec![Facts::default(); self.mean.len()]; self.v.len()];
        for (rank, (x, upstream)) in
            self.problem.x.iter().zip(&self.problem.grad_outputs).enumerate()
        {
            for (index, (x, (g, passed))) in
                x.iter().zip(upstream.iter().zip(&passed[rank])).enumerate()
            {
                let c = self.problem.channel(rank, index);
                let xhat = (x - self.mean[c]) * self.inv_std[c];
                let open = if self.is_open(rank, index) { g.abs() } else { 0.0 };
                let facts = &mut facts[rank][c];
                facts.terms.see(*passed, xhat);
                facts.open_g += open;
                facts.open_g_xhat += open * xhat.abs();
            }
        }
        facts
    }
}

/// Largest rounding error of a storage type, for values of a size. The bounds include that of f32
/// already.
fn half_ulp(size: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 0.0,
        DType::F16 => half_place(size, 10, -14),
        DType::BF16 => half_place(size, 7, -126),
    }
}
