//! Owns the layer that is timed, and how its passes are run: into tensors that are there already.

use pollster::block_on;
use syncbn::{Device, DeviceGroup, Error, GradTargets, PhaseTimes, SyncBatchNormConfig, Tensor};

use crate::inputs::{Form, Set, parameter};
use crate::workloads::Pass;

/// A layer with random parameters over the ranks.
#[derive(Debug)]
pub struct Layer {
    group: DeviceGroup,
    /// (C), the same on every rank.
    pub weight: Vec<f32>,
    /// (C), the same on every rank.
    pub bias: Vec<f32>,
    grad_weights: Vec<Tensor>,
    grad_biases: Vec<Tensor>,
}

impl Layer {
    pub fn new(channels: usize, form: Form, ranks: &[Device]) -> Result<Self, Error> {
        let config = SyncBatchNormConfig::torch(channels).with_epilogue(form.epilogue).with_activation_mask(form.mask);
        let mut group = DeviceGroup::new(config, ranks.to_vec())?;
        let (weight, bias) = (parameter(channels, 1.0, 1), parameter(channels, 0.0, 2));
        group.set_parameters(Some(&weight), Some(&bias))?;
        let vectors = || ranks.iter().map(|device| device.zeros(&[channels])).collect::<Result<Vec<_>, Error>>();
        Ok(Self { group, weight, bias, grad_weights: vectors()?, grad_biases: vectors()? })
    }

    /// Runs a pass over a set until it is submitted everywhere; `None` where it exchanges nothing. Backward is of the last
    /// forward call over the same set.
    pub fn submit(&mut self, pass: Pass, set: &mut Set) -> Result<Option<PhaseTimes>, Error> {
        let inputs = Set::inputs(&set.x, &set.residuals);
        Ok(match pass {
            Pass::Forward => {
                let (saved, report) = block_on(self.group.forward_train_into(inputs, &mut set.y))?;
                set.saved = Some(saved);
                Some(report.timing)
            }
            Pass::Eval => {
                block_on(self.group.forward_eval_into(inputs, &mut set.y))?;
                None
            }
            Pass::Backward => Some(self.backward(set, true)?),
        })
    }

    /// Backward without the gradients of the inputs: its sums and its exchange, but not its last kernel.
    pub fn submit_sums(&mut self, set: &mut Set) -> Result<(), Error> {
        self.backward(set, false).map(drop)
    }

    fn backward(&mut self, set: &mut Set, wants_inputs: bool) -> Result<PhaseTimes, Error> {
        let inputs = Set::inputs(&set.x, &set.residuals);
        let saved = match set.saved.take() {
            Some(saved) => saved,
            None => block_on(self.group.forward_train_into(inputs, &mut set.y))?.0,
        };
        let targets = GradTargets {
            grad_inputs: wants_inputs.then_some(&mut set.grad_inputs),
            grad_weights: Some(&mut self.grad_weights),
            grad_biases: Some(&mut self.grad_biases),
            grad_residuals: set.grad_residuals.as_deref_mut().filter(|_| wants_inputs),
        };
        let report = block_on(self.group.backward_into(&saved, inputs, &set.grad_outputs, targets))?;
        set.saved = Some(saved);
        Ok(report.timing)
    }

    /// Waits until every device is done.
    pub fn wait(&self) -> Result<(), Error> {
        self.group.devices().iter().try_for_each(|device| block_on(device.wait()))
    }

    /// Added to variances.
    pub fn eps(&self) -> f64 {
        self.group.config().eps
    }

    /// Running mean and variance, (C) each.
    pub fn running_stats(&self) -> [Vec<f32>; 2] {
        let running = self.group.running_stats();
        running.map_or_else(Default::default, |running| [running.mean.clone(), running.var.clone()])
    }

    /// What the last backward call wrote for weight and bias: (C) for each rank.
    pub fn parameter_gradients(&self) -> Result<[Vec<Vec<f32>>; 2], Error> {
        let read = |tensors: &[Tensor]| -> Result<Vec<Vec<f32>>, Error> {
            tensors.iter().map(|tensor| block_on(tensor.to_vec())).collect()
        };
        Ok([read(&self.grad_weights)?, read(&self.grad_biases)?])
    }
}
