//! The network: two convolutions and a linear layer, each normalized, and a linear layer of scores.
//! Which normalization is a type.
//!
//! The linear layer is there to be normalized: it gives a channel one value per sample, so that a
//! rank of two samples has two, of which one becomes about 1 and the other about −1 whatever they
//! were. The convolutions give a channel 32 values of two samples at least, and statistics of so
//! many do no harm here.

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
/// Channels of the linear layer that is normalized.
const HIDDEN: usize = 32;

/// A normalization over (N, C, ...).
pub trait Norm: Module + ModuleDisplay {
    fn of_channels(channels: usize, device: &Device) -> Self;
    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D>;
}

impl Norm for BatchNorm {
    fn of_channels(channels: usize, device: &Device) -> Self {
        BatchNormConfig::new(channels).init(device)
    }

    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward(x)
    }
}

impl Norm for SyncBatchNorm {
    fn of_channels(channels: usize, device: &Device) -> Self {
        SyncBatchNormConfig::new(channels).init(device)
    }

    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward(x)
    }
}

#[derive(Module, Debug)]
pub struct Network<N: Norm> {
    convolutions: Vec<Conv2d>,
    norms: Vec<N>,
    hidden: Linear,
    hidden_norm: N,
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
        let hidden = LinearConfig::new(before * POSITIONS, HIDDEN).with_bias(false).init(device);
        let hidden_norm = N::of_channels(HIDDEN, device);
        let last = LinearConfig::new(HIDDEN, CLASSES).init(device);
        Self { convolutions, norms, hidden, hidden_norm, last }
    }

    /// Scores (N, 10) of pictures (N, 1, 8, 8).
    pub fn forward(&self, mut x: Tensor<4>) -> Tensor<2> {
        for (convolution, norm) in self.convolutions.iter().zip(&self.norms) {
            x = relu(norm.apply(convolution.forward(x)));
        }
        let hidden = self.hidden_norm.apply(self.hidden.forward(x.flatten(1, 3)));
        self.last.forward(relu(hidden))
    }

    /// Sum of the cross entropies of pictures and their labels, (N, 10).
    pub fn sum_of_losses(&self, pixels: Tensor<4>, labels: Tensor<2>) -> Tensor<1> {
        (log_softmax(self.forward(pixels), 1) * labels).sum().neg()
    }
}
