//! What follows normalization in the same kernel, and the same by Burn's operations.

use burn::config::Config;
use burn::tensor::Tensor;
use burn::tensor::activation::{leaky_relu, relu};
use syncbn::config;

/// The activation of a normalization, computed by the kernel that normalizes.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum Activation {
    /// None.
    None,
    /// max(v, 0).
    Relu,
    /// v above 0, slope·v elsewhere.
    LeakyRelu(f64),
}

impl Activation {
    /// The layer's name for it.
    pub(crate) fn of_layer(self) -> config::Activation {
        match self {
            Self::None => config::Activation::None,
            Self::Relu => config::Activation::Relu,
            Self::LeakyRelu(slope) => config::Activation::LeakyRelu(slope as f32),
        }
    }

    /// By Burn's operations.
    pub(crate) fn apply<const D: usize>(self, v: Tensor<D>) -> Tensor<D> {
        match self {
            Self::None => v,
            Self::Relu => relu(v),
            Self::LeakyRelu(slope) => leaky_relu(v, slope),
        }
    }
}
