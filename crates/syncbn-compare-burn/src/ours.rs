//! Owns syncbn's side: one rank, into tensors that are there already.

use std::error::Error;
use std::time::{Duration, Instant};

use pollster::block_on;
use syncbn::{Backward, BatchNormConfig, Device, Forward, Saved, SyncBatchNorm, Tensor};

use crate::batch::Batch;
use crate::step::{Contender, Step};

/// A layer with the initial parameters, and its tensors.
pub struct Ours {
    device: Device,
    layer: SyncBatchNorm,
    x: Tensor,
    ones: Tensor,
    grad_output: Tensor,
    y: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
}

impl Ours {
    pub fn new(device: &Device, batch: &Batch) -> Result<Self, syncbn::Error> {
        let (dims, channels) = (batch.dims.as_slice(), batch.dims[1]);
        let ones = vec![1.0f32; batch.x.len()];
        Ok(Self {
            device: device.clone(),
            layer: SyncBatchNorm::new(BatchNormConfig::torch(channels), [device.clone()])?,
            x: device.upload(dims, &batch.x)?,
            ones: device.upload(dims, &ones)?,
            grad_output: device.upload(dims, &batch.grad_output)?,
            y: device.zeros(dims)?,
            grad_input: device.zeros(dims)?,
            grad_weight: device.zeros(&[channels])?,
            grad_bias: device.zeros(&[channels])?,
        })
    }

    /// The output of training.
    pub fn y(&mut self) -> Result<Vec<f32>, syncbn::Error> {
        self.forward()?;
        block_on(self.y.to_vec())
    }

    /// The gradient of the input for the upstream gradient of the batch.
    pub fn grad_input(&mut self) -> Result<Vec<f32>, syncbn::Error> {
        let saved = self.forward()?;
        let request = Backward::of(&self.x, &self.grad_output).input_gradient(&mut self.grad_input);
        block_on(self.layer.backward(&saved, request))?;
        block_on(self.grad_input.to_vec())
    }

    fn forward(&mut self) -> Result<Saved, syncbn::Error> {
        Ok(block_on(self.layer.forward_train(Forward::of(&self.x).write_to(&mut self.y)))?.saved)
    }
}

impl Contender for Ours {
    fn time(&mut self, step: Step) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        match step {
            Step::Forward => drop(self.forward()?),
            Step::Eval => {
                block_on(self.layer.forward_eval(Forward::of(&self.x).write_to(&mut self.y)))?;
            }
            Step::ForwardBackward => {
                let saved = self.forward()?;
                let request = Backward::of(&self.x, &self.ones)
                    .input_gradient(&mut self.grad_input)
                    .weight_gradient(&mut self.grad_weight)
                    .bias_gradient(&mut self.grad_bias);
                block_on(self.layer.backward(&saved, request))?;
            }
        }
        block_on(self.device.wait())?;
        Ok(started.elapsed())
    }
}
