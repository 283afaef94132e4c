//! What double backward should give, and the bounds of its errors.
//!
//! The bounds are those of `syncbn_reference::bounds`: 16 half ulp of the sum of the terms that are
//! rounded on the way.

use syncbn::config::AffineGradient;
use syncbn_reference::bounds::{TOLERANCE, mean_error};
use syncbn_reference::{self as reference, Cotangents};

use super::case::Case;
use crate::epilogue::bounds::derivative;
use crate::epilogue::problem::{Problem, Uses};
use crate::oracle::{ranks, reduced, wide, widened};
use crate::storage::half_ulp;

/// What it should give, and how far from it each number may be.
pub(super) struct Expected {
    pub values: [Vec<Vec<f64>>; 3],
    pub bounds: [Vec<Vec<f64>>; 3],
}

/// Averages and largest values of a channel.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    count: f64,
    h: f64,
    g: f64,
    v: f64,
    sum_g: f64,
    sum_gh: f64,
    sum_v: f64,
    sum_vh: f64,
    sum_vg: f64,
    sum_ug: f64,
    sum_ugh: f64,
}

impl Case {
    fn affine(&self, uses: Uses) -> AffineGradient {
        match uses {
            Uses::Group => self.problem.config.affine_gradient,
            Uses::Running => AffineGradient::Local,
        }
    }

    /// The cotangents of a parameter's local gradients, as they follow from those of what backward
    /// returns.
    fn of_local(&self, vectors: &Option<Vec<Vec<f32>>>, uses: Uses) -> Vec<Vec<f64>> {
        let ranks = self.problem.x.len();
        let zeros = vec![vec![0.0; self.problem.config.num_features]; ranks];
        let own = vectors
            .as_ref()
            .map_or(zeros, |vectors| vectors.iter().map(|values| widened(values)).collect());
        reduced(own, self.affine(uses))
    }

    /// What it should give, by the definition.
    pub(super) fn expected(&self, uses: Uses) -> Expected {
        let Problem { x: batches, config, .. } = &self.problem;
        let preactivation = self.problem.preactivation(uses);
        let weight = self.problem.weight().map(widened);
        let epilogue = self.problem.epilogue();
        let slopes: Vec<Vec<f64>> = preactivation
            .v
            .iter()
            .map(|of| of.iter().map(|&v| derivative(epilogue, v)).collect())
            .collect();
        let xs = wide(batches);
        let mut gs = wide(&self.problem.g);
        let pairs = gs.iter_mut().flatten().zip(slopes.iter().flatten());
        pairs.for_each(|(g, slope)| *g *= slope);
        let vs = self.v.as_ref().map_or_else(
            || batches.iter().map(|batch| vec![0.0; batch.values.len()]).collect(),
            |v| wide(v),
        );
        let us = self.of_local(&self.u, uses);
        let qs = self.of_local(&self.q, uses);
        let inputs = ranks(batches, &vs);
        let cotangents = Cotangents { inputs: &inputs, weights: Some(&us), biases: Some(&qs) };
        let x = ranks(batches, &xs);
        let g = ranks(batches, &gs);
        let [mean, var] = [preactivation.mean.as_slice(), &preactivation.var];
        let weight_of = |c: usize| weight.as_ref().map_or(1.0, |weight| weight[c]);
        let w = weight.as_deref();
        let eps = config.eps;
        let mut second = match uses {
            Uses::Group => reference::double_backward_train(&x, &g, cotangents, w, eps).unwrap(),
            Uses::Running => {
                reference::double_backward_with_statistics(&x, &g, cotangents, [mean, var], w, eps)
                    .unwrap()
            }
        };
        let gradients = second.grad_outputs.iter_mut().flatten().zip(slopes.iter().flatten());
        gradients.for_each(|(gradient, slope)| *gradient *= slope);
        second.weights = reduced(second.weights, self.affine(uses));

        let mut terms = vec![Terms::default(); config.num_features];
        for (rank, batch) in batches.iter().enumerate() {
            for (i, x) in xs[rank].iter().enumerate() {
                let c = batch.channel(i);
                let h = (x - mean[c]) * preactivation.inv_std[c];
                terms[c].see(h, gs[rank][i], vs[rank][i], us[rank][c]);
            }
        }
        let e: Vec<f64> = (0..config.num_features)
            .map(|c| match uses {
                Uses::Group => mean_error(mean[c], var[c], preactivation.inv_std[c]),
                Uses::Running => 0.0,
            })
            .collect();
        let of_channel = |rank: usize, part: usize| -> Vec<f64> {
            let of = |(i, &value): (usize, &f64)| {
                let c = batches[rank].channel(i);
                let s = preactivation.inv_std[c];
                let k = s * weight_of(c).abs();
                let terms = terms[c].with(uses, e[c]);
                let bound = match part {
                    0 => terms.of_input(s, k, us[rank][c].abs()),
                    _ => terms.of_grad_output(k, us[rank][c].abs(), qs[rank][c].abs()),
                };
                let is_at_kink = part == 1
                    && epilogue.activates()
                    && preactivation.v[rank][i].abs() <= preactivation.bound[c];
                let bound = bound + half_ulp(value.abs() + bound, self.problem.types[rank].x);
                if is_at_kink { f64::INFINITY } else { bound }
            };
            let values = [&second.inputs, &second.grad_outputs][part];
            values[rank].iter().enumerate().map(of).collect()
        };
        let all = |part: usize| (0..batches.len()).map(|rank| of_channel(rank, part)).collect();
        let of_weight = |c: usize| {
            let of = terms[c].with(uses, e[c]);
            TOLERANCE * preactivation.inv_std[c] * of.count * of.of_p()
        };
        let of_weights = vec![(0..config.num_features).map(of_weight).collect(); batches.len()];
        Expected {
            bounds: [all(0), all(1), of_weights],
            values: [second.inputs, second.grad_outputs, second.weights],
        }
    }
}

impl Terms {
    fn see(&mut self, h: f64, g: f64, v: f64, u: f64) {
        let [h, g, v, u] = [h, g, v, u].map(f64::abs);
        self.count += 1.0;
        self.h = self.h.max(h);
        self.g = self.g.max(g);
        self.v = self.v.max(v);
        self.sum_g += g;
        self.sum_gh += g * h;
        self.sum_v += v;
        self.sum_vh += v * h;
        self.sum_vg += v * g;
        self.sum_ug += u * g;
        self.sum_ugh += u * g * h;
    }

    /// Averages for sums, with what an error `e` of h adds; none where statistics are constants.
    fn with(self, uses: Uses, e: f64) -> Self {
        let n = self.count.max(1.0);
        let of_batch = |sum: f64| if uses == Uses::Group { sum / n } else { 0.0 };
        Self {
            h: self.h + e,
            sum_g: of_batch(self.sum_g),
            sum_gh: of_batch(self.sum_gh + e * self.sum_g),
            sum_v: of_batch(self.sum_v),
            sum_vh: of_batch(self.sum_vh + e * self.sum_v),
            sum_vg: self.sum_vg / n,
            sum_ug: of_batch(self.sum_ug),
            sum_ugh: of_batch(self.sum_ugh + e * self.sum_ug),
            ..self
        }
    }

    /// Of an average of v·p.
    fn of_p(&self) -> f64 {
        self.sum_vg + self.sum_v * self.sum_g + self.sum_vh * self.sum_gh
    }

    fn of_grad_output(&self, k: f64, u: f64, q: f64) -> f64 {
        TOLERANCE * (k * (self.v + self.sum_v + self.h * self.sum_vh) + u * self.h + q)
    }

    fn of_input(&self, s: f64, k: f64, u: f64) -> f64 {
        let direct = s * (u * self.g + self.sum_ug + self.h * self.sum_ugh);
        let is_batch = if self.sum_g + self.sum_v > 0.0 { 1.0 } else { 0.0 };
        let products = self.sum_vh * (self.g + self.sum_g)
            + self.sum_gh * (self.v + self.sum_v)
            + self.h * is_batch * (self.of_p() + 2.0 * self.sum_gh * self.sum_vh);
        TOLERANCE * (direct + k * s * products)
    }
}
