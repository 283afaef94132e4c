//! Owns syncbn's side: one rank, into tensors that are there already.

use std::error::Error;
use std::time::{Duration, Instant};

use pollster::block_on;
use syncbn::{Device, DeviceGroup, GradTargets, SavedForward, SyncBatchNormConfig, Tensor};

use crate::batch::Batch;
use crate::step::{Contender, Step};

/// A layer with the initial parameters, and its tensors: lists of the one rank.
pub struct Ours {
    device: Device,
    group: DeviceGroup,
    x: [Tensor; 1],
    ones: [Tensor; 1],
    grad_output: [Tensor; 1],
    y: [Tensor; 1],
    grad_input: [Tensor; 1],
    grad_weight: [Tensor; 1],
    grad_bias: [Tensor; 1],
}

impl Ours {
    pub fn new(device: &Device, batch: &Batch) -> Result<Self, syncbn::Error> {
        let (dims, channels) = (batch.dims.as_slice(), batch.dims[1]);
        let ones = vec![1.0; batch.x.len()];
        Ok(Self {
            device: device.clone(),
            group: DeviceGroup::new(SyncBatchNormConfig::torch(channels), vec![device.clone()])?,
            x: [device.upload(dims, &batch.x)?],
            ones: [device.upload(dims, &ones)?],
            grad_output: [device.upload(dims, &batch.grad_output)?],
            y: [device.zeros(dims)?],
            grad_input: [device.zeros(dims)?],
            grad_weight: [device.zeros(&[channels])?],
            grad_bias: [device.zeros(&[channels])?],
        })
    }

    /// The output of training.
    pub fn y(&mut self) -> Result<Vec<f32>, syncbn::Error> {
        self.forward()?;
        block_on(self.y[0].to_vec())
    }

    /// The gradient of the input for the upstream gradient of the batch.
    pub fn grad_input(&mut self) -> Result<Vec<f32>, syncbn::Error> {
        let saved = self.forward()?;
        let targets = GradTargets { grad_inputs: Some(&mut self.grad_input), ..GradTargets::default() };
        block_on(self.group.backward_into(&saved, &self.x, &self.grad_output, targets))?;
        block_on(self.grad_input[0].to_vec())
    }

    fn forward(&mut self) -> Result<SavedForward, syncbn::Error> {
        Ok(block_on(self.group.forward_train_into(&self.x, &mut self.y))?.0)
    }
}

impl Contender for Ours {
    fn time(&mut self, step: Step) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        match step {
            Step::Forward => drop(self.forward()?),
            Step::Eval => drop(block_on(self.group.forward_eval_into(&self.x, &mut self.y))?),
            Step::ForwardBackward => {
                let saved = self.forward()?;
                let targets = GradTargets {
                    grad_inputs: Some(&mut self.grad_input),
                    grad_weights: Some(&mut self.grad_weight),
                    grad_biases: Some(&mut self.grad_bias),
                    grad_residuals: None,
                };
                block_on(self.group.backward_into(&saved, &self.x, &self.ones, targets))?;
            }
        }
        block_on(self.device.wait())?;
        Ok(started.elapsed())
    }
}
