//! Owns the layer that is timed, and how its passes are run: into tensors that are there already.
//!
//! Ranks with a device each exchange statistics through the host. Ranks on one GPU, where they are told to share it, merge them
//! there and exchange nothing.

use pollster::block_on;
use syncbn::{Device, DeviceGroup, Error, GradTargets, PhaseTimes, ResidentGroup, ResidentSaved};
use syncbn::{SavedForward, SyncBatchNormConfig, Tensor};

use super::devices::Machine;
use super::inputs::{Form, Set, parameter};
use super::workloads::Pass;

/// A layer with random parameters over the ranks.
#[derive(Debug)]
pub struct Layer {
    group: Group,
    devices: Vec<Device>,
    /// (C), the same on every rank.
    pub weight: Vec<f32>,
    /// (C), the same on every rank.
    pub bias: Vec<f32>,
    grad_weights: Vec<Tensor>,
    grad_biases: Vec<Tensor>,
}

#[derive(Debug)]
enum Group {
    Exchanging(DeviceGroup),
    Resident(ResidentGroup),
}

/// What a forward call leaves for backward.
#[derive(Debug)]
pub enum Saved {
    Exchanging(SavedForward),
    Resident(ResidentSaved),
}

impl Layer {
    pub fn new(channels: usize, form: Form, machine: &Machine) -> Result<Self, Error> {
        let config = SyncBatchNormConfig::torch(channels).with_epilogue(form.epilogue).with_activation_mask(form.mask);
        let devices = machine.ranks.clone();
        let (weight, bias) = (parameter(channels, 1.0, 1), parameter(channels, 0.0, 2));
        let group = if machine.is_shared() {
            let mut group = ResidentGroup::new(config, devices[0].clone(), devices.len())?;
            group.set_parameters(Some(&weight), Some(&bias))?;
            Group::Resident(group)
        } else {
            let mut group = DeviceGroup::new(config, devices.clone())?;
            group.set_parameters(Some(&weight), Some(&bias))?;
            Group::Exchanging(group)
        };
        let vectors = || devices.iter().map(|device| device.zeros(&[channels])).collect::<Result<Vec<_>, Error>>();
        let (grad_weights, grad_biases) = (vectors()?, vectors()?);
        Ok(Self { group, devices, weight, bias, grad_weights, grad_biases })
    }

    /// Runs a pass over a set until it is submitted everywhere; `None` where it exchanges nothing. Backward is of the last
    /// forward call over the same set.
    pub fn submit(&mut self, pass: Pass, set: &mut Set) -> Result<Option<PhaseTimes>, Error> {
        match pass {
            Pass::Forward => self.forward(set),
            Pass::Eval => {
                let inputs = Set::inputs(&set.x, &set.residuals);
                match &mut self.group {
                    Group::Exchanging(group) => drop(block_on(group.forward_eval_into(inputs, &mut set.y))?),
                    Group::Resident(group) => drop(group.forward_eval_into(inputs, &mut set.y)?),
                }
                Ok(None)
            }
            Pass::Backward => self.backward(set, true),
        }
    }

    /// Backward without the gradients of the inputs: its sums and its exchange, but not its last kernel.
    pub fn submit_sums(&mut self, set: &mut Set) -> Result<(), Error> {
        self.backward(set, false).map(drop)
    }

    fn forward(&mut self, set: &mut Set) -> Result<Option<PhaseTimes>, Error> {
        let inputs = Set::inputs(&set.x, &set.residuals);
        let (saved, timing) = match &mut self.group {
            Group::Exchanging(group) => {
                let (saved, report) = block_on(group.forward_train_into(inputs, &mut set.y))?;
                (Saved::Exchanging(saved), Some(report.timing))
            }
            Group::Resident(group) => (Saved::Resident(group.forward_train_into(inputs, &mut set.y)?), None),
        };
        set.saved = Some(saved);
        Ok(timing)
    }

    fn backward(&mut self, set: &mut Set, wants_inputs: bool) -> Result<Option<PhaseTimes>, Error> {
        if set.saved.is_none() {
            self.forward(set)?;
        }
        let inputs = Set::inputs(&set.x, &set.residuals);
        let targets = GradTargets {
            grad_inputs: wants_inputs.then_some(&mut set.grad_inputs),
            grad_weights: Some(&mut self.grad_weights),
            grad_biases: Some(&mut self.grad_biases),
            grad_residuals: set.grad_residuals.as_deref_mut().filter(|_| wants_inputs),
        };
        match (&self.group, &set.saved) {
            (Group::Exchanging(group), Some(Saved::Exchanging(saved))) => {
                let report = block_on(group.backward_into(saved, inputs, &set.grad_outputs, targets))?;
                Ok(Some(report.timing))
            }
            (Group::Resident(group), Some(Saved::Resident(saved))) => {
                group.backward_into(saved, inputs, &set.grad_outputs, targets)?;
                Ok(None)
            }
            // Sets are not handed from one layer to another.
            _ => unreachable!("a set saved by another kind of layer"),
        }
    }

    /// Waits until every device is done.
    pub fn wait(&self) -> Result<(), Error> {
        self.devices.iter().try_for_each(|device| block_on(device.wait()))
    }

    /// Added to variances.
    pub fn eps(&self) -> f64 {
        match &self.group {
            Group::Exchanging(group) => group.config().eps,
            Group::Resident(group) => group.config().eps,
        }
    }

    /// Running mean and variance, (C) each.
    pub fn running_stats(&self) -> Result<[Vec<f32>; 2], Error> {
        let running = match &self.group {
            Group::Exchanging(group) => group.running_stats().cloned(),
            Group::Resident(group) => block_on(group.running_stats())?,
        };
        Ok(running.map_or_else(Default::default, |running| [running.mean, running.var]))
    }

    /// What the last backward call wrote for weight and bias: (C) for each rank.
    pub fn parameter_gradients(&self) -> Result<[Vec<Vec<f32>>; 2], Error> {
        let read = |tensors: &[Tensor]| -> Result<Vec<Vec<f32>>, Error> {
            tensors.iter().map(|tensor| block_on(tensor.to_vec())).collect()
        };
        Ok([read(&self.grad_weights)?, read(&self.grad_biases)?])
    }
}
