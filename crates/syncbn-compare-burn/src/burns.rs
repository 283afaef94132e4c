//! Owns Burn's side.

use std::error::Error;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{Device, Tensor, TensorData};

use crate::batch::Batch;
use crate::step::{Contender, Step};

/// A layer of Burn's whose number of dimensions is no longer known.
pub trait Burns: Contender {
    /// The output of training.
    fn y(&self) -> Vec<f32>;
    /// The gradient of the input for the upstream gradient of the batch.
    fn grad_input(&self) -> Vec<f32>;
}

/// A layer with the initial parameters, for a batch of two dimensions or more.
pub fn open(device: &Device, batch: &Batch) -> Box<dyn Burns> {
    match batch.dims.len() {
        2 => Box::new(Layer::<2>::new(device, batch)),
        3 => Box::new(Layer::<3>::new(device, batch)),
        4 => Box::new(Layer::<4>::new(device, batch)),
        _ => Box::new(Layer::<5>::new(device, batch)),
    }
}

struct Layer<const D: usize> {
    device: Device,
    training: BatchNorm,
    evaluating: BatchNorm,
    /// Wants a gradient.
    x: Tensor<D>,
    /// The same values, without a part in any graph.
    plain: Tensor<D>,
    grad_output: Tensor<D>,
}

impl<const D: usize> Layer<D> {
    fn new(device: &Device, batch: &Batch) -> Self {
        let recording = device.clone().autodiff();
        let training = BatchNormConfig::new(batch.dims[1]).init(&recording);
        let data = |values: &[f32]| TensorData::new(values.to_vec(), batch.dims.clone());
        Self {
            evaluating: training.valid(),
            training,
            x: Tensor::from_data(data(&batch.x), &recording).require_grad(),
            plain: Tensor::from_data(data(&batch.x), device),
            grad_output: Tensor::from_data(data(&batch.grad_output), &recording),
            device: device.clone(),
        }
    }
}

impl<const D: usize> Burns for Layer<D> {
    fn y(&self) -> Vec<f32> {
        values(self.training.forward(self.x.clone()))
    }

    fn grad_input(&self) -> Vec<f32> {
        let loss = (self.training.forward(self.x.clone()) * self.grad_output.clone()).sum();
        self.x.grad(&loss.backward()).map(values).unwrap_or_default()
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

impl<const D: usize> Contender for Layer<D> {
    fn time(&mut self, step: Step) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        // What a step made is kept until the device is done: with fusion, what nobody holds need
        // not be computed.
        match step {
            Step::Forward => {
                let y = self.training.forward(self.x.clone());
                self.device.sync()?;
                drop(y);
            }
            Step::Eval => {
                let y = self.evaluating.forward(self.plain.clone());
                self.device.sync()?;
                drop(y);
            }
            Step::ForwardBackward => {
                // Begins with a gradient of ones for every value.
                let y = self.training.forward(self.x.clone());
                let gradients = y.backward();
                self.device.sync()?;
                drop((y, gradients));
            }
        }
        Ok(started.elapsed())
    }
}
