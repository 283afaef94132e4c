//! Owns the network as a contender: a ResNet-18 for small pictures, of which the normalization is a
//! type.

use std::error::Error;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Distribution, Tensor};

use crate::layer::Norm;
use crate::step::{Contender, Step};

/// Pictures of a step, and their edge.
pub const PICTURES: [usize; 2] = [8, 32];
const CLASSES: usize = 10;

/// Two convolutions beside a way past them.
#[derive(Module, Debug)]
struct Block<N: Norm> {
    convolutions: Vec<Conv2d>,
    norms: Vec<N>,
    past: Option<(Conv2d, N)>,
}

/// The network, of four stages of two blocks; the first has `width` channels.
#[derive(Module, Debug)]
pub struct Network<N: Norm> {
    stem: Conv2d,
    stem_norm: N,
    blocks: Vec<Block<N>>,
    last: Linear,
}

fn convolution(channels: [usize; 2], size: usize, stride: usize, device: &Device) -> Conv2d {
    let edge = size / 2;
    Conv2dConfig::new(channels, [size, size])
        .with_padding(PaddingConfig2d::Explicit(edge, edge, edge, edge))
        .with_stride([stride, stride])
        .with_bias(false)
        .init(device)
}

impl<N: Norm> Block<N> {
    fn new([from, to]: [usize; 2], stride: usize, device: &Device) -> Self {
        let past = (stride != 1 || from != to)
            .then(|| (convolution([from, to], 1, stride, device), N::of_channels(to, device)));
        Self {
            convolutions: vec![
                convolution([from, to], 3, stride, device),
                convolution([to, to], 3, 1, device),
            ],
            norms: vec![N::of_channels(to, device), N::of_channels(to, device)],
            past,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = self.norms[0].apply_relu(self.convolutions[0].forward(x.clone()));
        let past = match &self.past {
            Some((convolution, norm)) => norm.apply(convolution.forward(x)),
            None => x,
        };
        self.norms[1].apply_add_relu(self.convolutions[1].forward(inner), past)
    }
}

impl<N: Norm> Network<N> {
    fn new(width: usize, device: &Device) -> Self {
        let mut blocks = Vec::new();
        let mut from = width;
        for stage in 0..4 {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                blocks.push(Block::new([from, width << stage], stride, device));
                from = width << stage;
            }
        }
        Self {
            stem: convolution([3, width], 3, 1, device),
            stem_norm: N::of_channels(width, device),
            blocks,
            last: LinearConfig::new(from, CLASSES).init(device),
        }
    }

    fn forward(&self, pictures: Tensor<4>) -> Tensor<2> {
        let x = self.stem_norm.apply_relu(self.stem.forward(pictures));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.last.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}

/// A network with its pictures.
pub struct Training<N: Norm> {
    device: Device,
    network: Network<N>,
    evaluating: Network<N>,
    pictures: Tensor<4>,
}

impl<N: Norm> Training<N> {
    /// With weights and pictures from the device's random numbers, begun anew.
    pub fn new(width: usize, device: &Device) -> Self {
        let recording = device.clone().autodiff();
        device.seed(7);
        let network = Network::<N>::new(width, &recording);
        let [batch, edge] = PICTURES;
        let pictures = Tensor::random([batch, 3, edge, edge], Distribution::Default, &recording);
        Self { device: device.clone(), evaluating: network.valid(), network, pictures }
    }

    /// The scores in training.
    pub fn scores(&self) -> Vec<f32> {
        self.network.forward(self.pictures.clone()).into_data().iter().collect()
    }
}

impl<N: Norm> Contender for Training<N> {
    fn time(&mut self, step: Step) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        match step {
            Step::Forward => {
                let scores = self.network.forward(self.pictures.clone());
                self.device.sync()?;
                drop(scores);
            }
            Step::Eval => {
                let pictures = self.pictures.clone().without_autodiff();
                let scores = self.evaluating.forward(pictures);
                self.device.sync()?;
                drop(scores);
            }
            Step::ForwardBackward => {
                let scores = self.network.forward(self.pictures.clone());
                let gradients = scores.powi_scalar(2).sum().backward();
                self.device.sync()?;
                drop(gradients);
            }
        }
        Ok(started.elapsed())
    }
}
