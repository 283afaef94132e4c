//! Owns the layers as contenders: Burn's and this project's, both as modules of Burn on the same
//! device, with the same tensors.

use std::error::Error;
use std::time::{Duration, Instant};

use burn::module::{Module, ModuleDisplay};
use burn::nn;
use burn::tensor::{Device, Tensor, TensorData};

use crate::batch::Batch;
use crate::step::{Contender, Step};

/// A batch normalization of either side.
pub trait Norm: Module + ModuleDisplay + 'static {
    fn of_channels(channels: usize, device: &Device) -> Self;
    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D>;
    /// With the activation max(v, 0).
    fn apply_relu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D>;
    /// With a residual, then the activation.
    fn apply_add_relu<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D>;
}

impl Norm for nn::BatchNorm {
    fn of_channels(channels: usize, device: &Device) -> Self {
        nn::BatchNormConfig::new(channels).init(device)
    }

    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward(x)
    }

    fn apply_relu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        burn::tensor::activation::relu(self.forward(x))
    }

    fn apply_add_relu<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        burn::tensor::activation::relu(self.forward(x) + residual)
    }
}

/// Ours, of which the activation is a setting.
#[derive(Module, Debug)]
pub struct Ours {
    plain: syncbn_burn::BatchNorm,
}

impl Norm for Ours {
    fn of_channels(channels: usize, device: &Device) -> Self {
        Self { plain: syncbn_burn::BatchNormConfig::new(channels).init(device) }
    }

    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.plain.forward(x)
    }

    fn apply_relu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.plain.clone().with_activation(syncbn_burn::Activation::Relu).forward(x)
    }

    fn apply_add_relu<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        self.plain.clone().with_activation(syncbn_burn::Activation::Relu).forward_add(x, residual)
    }
}

/// A layer whose number of dimensions is no longer known.
pub trait AnyLayer: Contender {
    /// The output of training, and the gradient of the input for the upstream gradient of the
    /// batch.
    fn passes(&self) -> [Vec<f32>; 2];
}

/// A layer with the initial parameters, for a batch of two dimensions or more.
pub fn open<N: Norm>(device: &Device, batch: &Batch) -> Box<dyn AnyLayer> {
    match batch.dims.len() {
        2 => Box::new(Layer::<N, 2>::new(device, batch)),
        3 => Box::new(Layer::<N, 3>::new(device, batch)),
        4 => Box::new(Layer::<N, 4>::new(device, batch)),
        _ => Box::new(Layer::<N, 5>::new(device, batch)),
    }
}

struct Layer<N: Norm, const D: usize> {
    device: Device,
    training: N,
    evaluating: N,
    /// Wants a gradient.
    x: Tensor<D>,
    /// The same values, without a part in any graph.
    plain: Tensor<D>,
    grad_output: Tensor<D>,
}

impl<N: Norm, const D: usize> Layer<N, D> {
    fn new(device: &Device, batch: &Batch) -> Self {
        let recording = device.clone().autodiff();
        let training = N::of_channels(batch.dims[1], &recording);
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

impl<N: Norm, const D: usize> AnyLayer for Layer<N, D> {
    fn passes(&self) -> [Vec<f32>; 2] {
        let y = self.training.apply(self.x.clone());
        let loss = (y.clone() * self.grad_output.clone()).sum();
        let gradient = self.x.grad(&loss.backward());
        [values(y), gradient.map(values).unwrap_or_default()]
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

impl<N: Norm, const D: usize> Contender for Layer<N, D> {
    fn time(&mut self, step: Step) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        // The results of a step are kept until the device is done. With fusion, results that nobody
        // holds need not be computed.
        match step {
            Step::Forward => {
                let y = self.training.apply(self.x.clone());
                self.device.sync()?;
                drop(y);
            }
            Step::Eval => {
                let y = self.evaluating.apply(self.plain.clone());
                self.device.sync()?;
                drop(y);
            }
            Step::ForwardBackward => {
                // Begins with a gradient of ones for every value.
                let y = self.training.apply(self.x.clone());
                let gradients = y.backward();
                self.device.sync()?;
                drop((y, gradients));
            }
        }
        Ok(started.elapsed())
    }
}
