//! Owns the timed layer and the calls of its passes, which write into existing tensors.
//!
//! Ranks with a device each exchange statistics through the host. Ranks that share one GPU merge
//! them there and exchange nothing.

use pollster::block_on;
use syncbn::stats::PhaseTimes;
use syncbn::{Backward, BatchNorm, BatchNormConfig, Device, Error, Forward, SyncBatchNorm, Tensor};

use crate::devices::Machine;
use crate::inputs::{Form, Set, parameter};
use crate::workloads::Pass;

/// A layer with random parameters over the ranks.
#[derive(Debug)]
pub struct Layer {
    kind: Kind,
    devices: Vec<Device>,
    /// (C), the same on every rank.
    pub weight: Vec<f32>,
    /// (C), the same on every rank.
    pub bias: Vec<f32>,
    grad_weights: Vec<Tensor>,
    grad_biases: Vec<Tensor>,
    reproducible: bool,
}

#[derive(Debug)]
enum Kind {
    Exchanging(SyncBatchNorm),
    OnDevice(BatchNorm),
}

impl Layer {
    pub fn new(channels: usize, form: Form, machine: &Machine) -> Result<Self, Error> {
        Self::of(channels, form, machine, false)
    }

    /// A layer whose sums are of integers.
    pub fn reproducible(channels: usize, form: Form, machine: &Machine) -> Result<Self, Error> {
        Self::of(channels, form, machine, true)
    }

    fn of(
        channels: usize,
        form: Form,
        machine: &Machine,
        reproducible: bool,
    ) -> Result<Self, Error> {
        let config = BatchNormConfig::torch(channels)
            .with_residual(form.epilogue.residual)
            .with_activation(form.epilogue.activation)
            .with_activation_mask(form.mask)
            .with_reproducible(reproducible);
        let devices = machine.ranks.clone();
        let weight = parameter(channels, 1.0, 1);
        let bias = parameter(channels, 0.0, 2);
        let kind = if machine.is_shared() {
            let mut layer = BatchNorm::new(config, &devices[0])?;
            layer.set_parameters(Some(&weight), Some(&bias))?;
            Kind::OnDevice(layer)
        } else {
            let mut layer = SyncBatchNorm::new(config, devices.iter().cloned())?;
            layer.set_parameters(Some(&weight), Some(&bias))?;
            Kind::Exchanging(layer)
        };
        let vectors = || {
            devices
                .iter()
                .map(|device| device.zeros(&[channels]))
                .collect::<Result<Vec<_>, Error>>()
        };
        let grad_weights = vectors()?;
        let grad_biases = vectors()?;
        Ok(Self { kind, devices, weight, bias, grad_weights, grad_biases, reproducible })
    }

    /// Runs a pass over a set until it is submitted everywhere; `None` where it exchanges nothing.
    /// Backward is of the last forward call over the same set.
    pub fn submit(&mut self, pass: Pass, set: &mut Set) -> Result<Option<PhaseTimes>, Error> {
        match pass {
            Pass::Forward => self.forward(set),
            Pass::Eval => {
                let request = forward(&set.x, &set.residuals).write_to(&mut set.y);
                match &self.kind {
                    Kind::Exchanging(layer) => drop(block_on(layer.forward_eval(request))?),
                    Kind::OnDevice(layer) => drop(layer.forward_eval(request)?),
                }
                Ok(None)
            }
            Pass::Backward => self.backward(set),
        }
    }

    fn forward(&self, set: &mut Set) -> Result<Option<PhaseTimes>, Error> {
        let request = forward(&set.x, &set.residuals).write_to(&mut set.y);
        let saved = match &self.kind {
            Kind::Exchanging(layer) => block_on(layer.forward_train(request))?.saved,
            Kind::OnDevice(layer) => layer.forward_train(request)?.saved,
        };
        let times = saved.report().map(|report| report.times);
        set.saved[usize::from(self.reproducible)] = Some(saved);
        Ok(times)
    }

    fn backward(&mut self, set: &mut Set) -> Result<Option<PhaseTimes>, Error> {
        let of_layer = usize::from(self.reproducible);
        if set.saved[of_layer].is_none() {
            self.forward(set)?;
        }
        // Made right above where it was missing.
        let Some(saved) = &set.saved[of_layer] else { return Ok(None) };
        let mut request = Backward::of(&set.x, &set.grad_outputs)
            .input_gradient(&mut set.grad_inputs)
            .weight_gradient(&mut self.grad_weights)
            .bias_gradient(&mut self.grad_biases)
            .residual_gradient(set.grad_residuals.as_mut());
        if let Some(residuals) = &set.residuals {
            request = request.residual(residuals);
        }
        let gradients = match &self.kind {
            Kind::Exchanging(layer) => block_on(layer.backward(saved, request))?,
            Kind::OnDevice(layer) => layer.backward(saved, request)?,
        };
        Ok(gradients.report.map(|report| report.times))
    }

    /// Waits until every device is done.
    pub fn wait(&self) -> Result<(), Error> {
        self.devices.iter().try_for_each(|device| block_on(device.wait()))
    }

    /// Added to variances.
    pub fn eps(&self) -> f64 {
        match &self.kind {
            Kind::Exchanging(layer) => layer.config().eps,
            Kind::OnDevice(layer) => layer.config().eps,
        }
    }

    /// Running mean and variance, (C) each.
    pub fn running_stats(&self) -> Result<[Vec<f32>; 2], Error> {
        let running = match &self.kind {
            Kind::Exchanging(layer) => layer.running_stats(),
            Kind::OnDevice(layer) => block_on(layer.running_stats())?,
        };
        Ok(running.map_or_else(Default::default, |running| [running.mean, running.var]))
    }

    /// Gradients of weight and bias from the last backward call, (C) for each rank.
    pub fn parameter_gradients(&self) -> Result<[Vec<Vec<f32>>; 2], Error> {
        let read = |tensors: &[Tensor]| -> Result<Vec<Vec<f32>>, Error> {
            tensors.iter().map(|tensor| block_on(tensor.to_vec())).collect()
        };
        Ok([read(&self.grad_weights)?, read(&self.grad_biases)?])
    }
}

/// A request with a residual where there is one.
fn forward<'a>(x: &'a [Tensor], residuals: &'a Option<Vec<Tensor>>) -> Forward<'a, Vec<Tensor>> {
    let request = Forward::of(x);
    match residuals {
        Some(residuals) => request.residual(residuals),
        None => request,
    }
}
