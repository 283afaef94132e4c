//! A layer with its batches and cotangents, what double backward gave, and whether it is what it
//! should be.

use syncbn::{BatchNorm, Device, DoubleBackward, DoubleGradients, Error, Layout, Tensor};

use super::expected::Expected;
use super::on::On;
use crate::batch::{Batch, read};
use crate::compare::worst_share;
use crate::epilogue::problem::{Problem, Uses, forward_of};
use crate::placement::Placement;
use crate::random::Random;
use crate::storage::{Types, rounded, upload_as};

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

impl Case {
    /// With random cotangents, of a mean of their own, in values that the storage types hold.
    pub fn new(problem: Problem, seed: u64) -> Self {
        let mut random = Random::new(seed + 7777);
        let cotangent = |(batch, types): (&Batch, &Types)| {
            Batch::new(&batch.dims, |_| rounded(0.3 + random.next() as f32, types.x))
        };
        let v = problem.x.iter().zip(&problem.types).map(cotangent).collect();
        let channels = problem.config.num_features;
        let mut vectors = || problem.x.iter().map(|_| random.values(channels)).collect();
        let u = vectors();
        let q = vectors();
        let u = problem.config.weight.then_some(u);
        let q = problem.config.bias.then_some(q);
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
        let x = as_x(x);
        let g = as_x(g);
        let residuals = residuals.as_ref().map(as_x);
        let v = self.v.as_ref().map(as_x);
        let u = self.u.as_ref().map(vectors);
        let q = self.q.as_ref().map(vectors);
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

    pub fn run(&self, on: impl Placement, layout: Layout, uses: Uses) -> Found {
        let layer = self.problem.layer(on.devices(self.problem.x.len()));
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
        let value = values[part][0][1];
        let bound = bounds[part][0][1];
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
