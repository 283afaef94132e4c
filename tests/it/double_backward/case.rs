//! A layer with its batches and cotangents, what double backward gave, and what it should give.
//!
//! The bounds are those of `syncbn_reference::bounds`: 16 half ulp of the sum of the terms that are
//! rounded on the way.

use syncbn::config::AffineGradient;
use syncbn::{BatchNorm, Device, DoubleBackward, DoubleGradients, Error, Layout, Tensor};
use syncbn_reference::bounds::{TOLERANCE, mean_error};
use syncbn_reference::{self as reference, Cotangents};

use super::common::epilogue::bounds::{derivative, ranks, wide};
use super::common::epilogue::problem::{Problem, Uses, forward_of};
use super::common::storage::{half_ulp, rounded, upload_as};
use super::common::*;
use super::on::On;

/// A problem and the cotangents of its gradients.
#[derive(Clone, Debug)]
pub struct Case {
    pub problem: Problem,
    pub v: Option<Vec<Batch>>,
    pub u: Option<Vec<Vec<f32>>>,
    pub q: Option<Vec<Vec<f32>>>,
}

/// What a call gave, channels first.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub inputs: Vec<Vec<f32>>,
    pub grad_outputs: Vec<Vec<f32>>,
    pub weights: Option<Vec<Vec<f32>>>,
}

/// What it should give, and how far from it each number may be.
struct Expected {
    values: [Vec<Vec<f64>>; 3],
    bounds: [Vec<Vec<f64>>; 3],
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
    /// With random cotangents, of a mean of their own, in values that the storage types hold.
    pub fn new(problem: Problem, seed: u64) -> Self {
        let mut random = Random::new(seed + 7777);
        let cotangent = |(batch, types): (&Batch, &storage::Types)| {
            Batch::new(&batch.dims, |_| rounded(0.3 + random.next() as f32, types.x))
        };
        let v = problem.x.iter().zip(&problem.types).map(cotangent).collect();
        let channels = problem.config.num_features;
        let mut vectors = || problem.x.iter().map(|_| random.values(channels)).collect();
        let (u, q) = (vectors(), vectors());
        let (u, q) = (problem.config.weight.then_some(u), problem.config.bias.then_some(q));
        Self { v: Some(v), u, q, problem }
    }

    /// The tensors of the call, and the call.
    pub fn call<'l>(
        &self,
        layer: impl Into<On<'l>>,
        layout: Layout,
        uses: Uses,
    ) -> Result<DoubleGradients<Vec<Tensor>>, Error> {
        let Problem { x, residuals, g, types, .. } = &self.problem;
        let layer = layer.into();
        let devices = layer.devices(x.len());
        let as_x = |batches: &Vec<Batch>| -> Vec<Tensor> {
            let ranks = devices.iter().zip(batches).zip(types);
            ranks.map(|((on, batch), types)| upload_as(on, batch, types.x, layout)).collect()
        };
        let vectors = |vectors: &Vec<Vec<f32>>| -> Vec<Tensor> {
            let ranks = devices.iter().zip(vectors);
            ranks.map(|(on, values)| on.upload(&[values.len()], values).unwrap()).collect()
        };
        let (x, g) = (as_x(x), as_x(g));
        let residuals = residuals.as_ref().map(as_x);
        let v = self.v.as_ref().map(as_x);
        let (u, q) = (self.u.as_ref().map(vectors), self.q.as_ref().map(vectors));
        let forward = forward_of(&x, residuals.as_deref());
        let saved = layer.saved(forward, uses)?;
        let mut request = DoubleBackward::of(&x, &g);
        if let Some(v) = &v {
            request = request.input_cotangent(v);
        }
        if let Some(u) = &u {
            request = request.weight_cotangent(u);
        }
        if let Some(q) = &q {
            request = request.bias_cotangent(q);
        }
        if let Some(residuals) = residuals.as_ref().filter(|_| saved.needs_residual()) {
            request = request.residual(residuals);
        }
        let second = layer.double_backward(&saved, request)?;
        for (gradient, x) in second.input.iter().chain(&second.grad_output).zip(x.iter().chain(&x))
        {
            assert_eq!((gradient.dtype(), gradient.layout()), (x.dtype(), x.layout()));
            assert_eq!(gradient.dims(), x.dims());
        }
        Ok(second)
    }

    pub fn run(&self, kind: Kind, layout: Layout, uses: Uses) -> Found {
        let layer = self.problem.layer(kind.devices(self.problem.x.len()));
        self.found(&self.call(&layer, layout, uses).unwrap())
    }

    /// The same on a layer of one GPU.
    pub fn run_on_one_gpu(&self, device: &Device, layout: Layout, uses: Uses) -> Found {
        let mut layer = BatchNorm::new(self.problem.config.clone(), device).unwrap();
        layer.set_parameters(self.problem.weight(), self.problem.bias()).unwrap();
        if self.problem.config.track_running_stats {
            layer.set_running_stats(self.problem.running.clone()).unwrap();
        }
        self.found(&self.call(&layer, layout, uses).unwrap())
    }

    pub fn found(&self, second: &DoubleGradients<Vec<Tensor>>) -> Found {
        Found {
            inputs: self.problem.read(&second.input),
            grad_outputs: self.problem.read(&second.grad_output),
            weights: second.weight.as_deref().map(read),
        }
    }

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
        let own: Vec<Vec<f64>> = vectors
            .as_ref()
            .map_or(zeros, |vectors| vectors.iter().map(|values| widened(values)).collect());
        let divisor = match self.affine(uses) {
            AffineGradient::Local => return own,
            AffineGradient::GroupSum => 1.0,
            AffineGradient::GroupMean => ranks as f64,
        };
        let sum = |c: usize| own.iter().map(|of| of[c]).sum::<f64>() / divisor;
        vec![(0..own[0].len()).map(sum).collect(); ranks]
    }

    fn expected(&self, uses: Uses) -> Expected {
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
        let (us, qs) = (self.of_local(&self.u, uses), self.of_local(&self.q, uses));
        let inputs = ranks(batches, &vs);
        let cotangents = Cotangents { inputs: &inputs, weights: Some(&us), biases: Some(&qs) };
        let (x, g) = (ranks(batches, &xs), ranks(batches, &gs));
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
                let (c, types) = (batches[rank].channel(i), self.problem.types[rank]);
                let (s, k) =
                    (preactivation.inv_std[c], preactivation.inv_std[c] * weight_of(c).abs());
                let terms = terms[c].with(uses, e[c]);
                let bound = match part {
                    0 => terms.of_input(s, k, us[rank][c].abs()),
                    _ => terms.of_grad_output(k, us[rank][c].abs(), qs[rank][c].abs()),
                };
                let is_at_kink = part == 1
                    && epilogue.activates()
                    && preactivation.v[rank][i].abs() <= preactivation.bound[c];
                let bound = bound + half_ulp(value.abs() + bound, types.x);
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

    /// The worst error as a share of its bound, or what is wrong.
    pub fn compare(&self, uses: Uses, found: &Found) -> Result<f64, String> {
        let Expected { values, bounds } = self.expected(uses);
        if found.weights.is_some() != self.problem.config.weight {
            return Err("whether there is a gradient of the weight".to_owned());
        }
        let found = [Some(&found.inputs), Some(&found.grad_outputs), found.weights.as_ref()];
        let names = ["input", "grad_output", "weight"];
        let mut worst = 0f64;
        for (part, found) in found.iter().enumerate() {
            let Some(found) = found else { continue };
            for (rank, found) in found.iter().enumerate() {
                let name = format!("{}[{rank}]", names[part]);
                let bound = |index: usize| bounds[part][rank][index];
                worst = worst.max(worst_share(&name, found, &values[part][rank], bound)?);
            }
        }
        Ok(worst)
    }

    /// Moves one number away from what is expected by a multiple of its bound.
    pub fn perturb(&self, found: &mut Found, part: usize, by: f64) {
        let Expected { values, bounds } = self.expected(Uses::Group);
        let parts = [&mut found.inputs, &mut found.grad_outputs, found.weights.as_mut().unwrap()];
        let (value, bound) = (values[part][0][1], bounds[part][0][1]);
        assert!(bound.is_finite());
        for (at, to) in parts.into_iter().enumerate() {
            if at == part {
                to[0][1] = (value + by * bound) as f32;
            }
        }
    }

    /// The definition as if the deviation were a constant of the batch, in f32.
    pub fn wrong_definition(&self) -> Found {
        let narrow = |values: &[Vec<f64>]| -> Vec<Vec<f32>> {
            values.iter().map(|of| of.iter().map(|&value| value as f32).collect()).collect()
        };
        let Expected { values: [mut inputs, grad_outputs, weights], .. } =
            self.expected(Uses::Group);
        let preactivation = self.problem.preactivation(Uses::Group);
        let count: usize = inputs.iter().map(Vec::len).sum::<usize>() / weights[0].len();
        for (rank, of_rank) in inputs.iter_mut().enumerate() {
            let batch = &self.problem.x[rank];
            for (i, value) in of_rank.iter_mut().enumerate() {
                let c = batch.channel(i);
                let s = preactivation.inv_std[c];
                let h = (f64::from(batch.values[i]) - preactivation.mean[c]) * s;
                let sum_vp: f64 = weights.iter().map(|of| of[c]).sum::<f64>() / s;
                let w = self.problem.weight().map_or(1.0, |weight| f64::from(weight[c]));
                *value += w * s * s * h * sum_vp / count as f64;
            }
        }
        Found {
            inputs: narrow(&inputs),
            grad_outputs: narrow(&grad_outputs),
            weights: Some(narrow(&weights)),
        }
    }
}

/// What every rank gets of the ranks' own gradients.
fn reduced(local: Vec<Vec<f64>>, of: AffineGradient) -> Vec<Vec<f64>> {
    let divisor = match of {
        AffineGradient::Local => return local,
        AffineGradient::GroupSum => 1.0,
        AffineGradient::GroupMean => local.len() as f64,
    };
    let sum = |c: usize| local.iter().map(|rank| rank[c]).sum::<f64>() / divisor;
    vec![(0..local[0].len()).map(sum).collect(); local.len()]
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
