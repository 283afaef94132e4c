//! The network: two convolutions, each normalized, and a linear layer. Which normalization is a type.

use burn::module::{Module, ModuleDisplay};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Tensor};
use syncbn_burn::{SyncBatchNorm, SyncBatchNormConfig};

use super::data::CLASSES;

/// Channels after each convolution.
const CHANNELS: [usize; 2] = [8, 16];
/// Positions of the last: 8×8 is halved once.
const POSITIONS: usize = 16;

/// A normalization over (N, C, H, W).
pub trait Norm: Module + ModuleDisplay {
    fn of_channels(channels: usize, device: &Device) -> Self;
    fn apply(&self, x: Tensor<4>) -> Tensor<4>;
}

impl Norm for BatchNorm {
    fn of_channels(channels: usize, device: &Device) -> Self {
        BatchNormConfig::new(channels).init(device)
    }

    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward(x)
    }
}

impl Norm for SyncBatchNorm {
    fn of_channels(channels: usize, device: &Device) -> Self {
        SyncBatchNormConfig::new(channels).init(device)
    }

    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward(x)
    }
}

#[derive(Module, Debug)]
pub struct Network<N: Norm> {
    convolutions: Vec<Conv2d>,
    norms: Vec<N>,
    last: Linear,
}

impl<N: Norm> Network<N> {
    pub fn new(device: &Device) -> Self {
        let mut convolutions = Vec::new();
        let mut norms = Vec::new();
        let mut before = 1;
        for (index, channels) in CHANNELS.into_iter().enumerate() {
            // The second halves the picture. A bias would be taken away again by the mean.
            let stride = if index == 0 { 1 } else { 2 };
            let convolution = Conv2dConfig::new([before, channels], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_stride([stride; 2])
                .with_bias(false);
            convolutions.push(convolution.init(device));
            norms.push(N::of_channels(channels, device));
            before = channels;
        }
        let last = LinearConfig::new(before * POSITIONS, CLASSES).init(device);
        Self { convolutions, norms, last }
    }

    /// Scores (N, 10) of pictures (N, 1, 8, 8).
    pub fn forward(&self, mut x: Tensor<4>) -> Tensor<2> {
        for (convolution, norm) in self.convolutions.iter().zip(&self.norms) {
            x = relu(norm.apply(convolution.forward(x)));
        }
        self.last.forward(x.flatten(1, 3))
    }

    /// Mean cross entropy of pictures and their labels, (N, 10).
    pub fn loss(&self, pixels: Tensor<4>, labels: Tensor<2>) -> Tensor<1> {
        let samples = labels.dims()[0] as f64;
        (log_softmax(self.forward(pixels), 1) * labels).sum().div_scalar(-samples)
    }
}
