//! The activations of the kernel that normalizes, and the same by Burn's operations.

use burn::config::Config;
use burn::nn::activation::ActivationConfig;
use burn::tensor::Tensor;
use burn::tensor::activation::{
    elu, gelu, gelu_approximate, hard_swish, leaky_relu, relu, relu6, silu,
};
use syncbn::config;

use crate::error::Error;

/// The activation of a normalization, computed by the kernel that normalizes.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum Activation {
    /// None.
    None,
    /// max(v, 0).
    Relu,
    /// v above 0, slope·v elsewhere.
    LeakyRelu(f64),
    /// min(max(v, 0), 6).
    Relu6,
    /// v·σ(v).
    Silu,
    /// v·min(max(v + 3, 0), 6)/6.
    Hardswish,
    /// v·(1 + erf(v/√2))/2.
    Gelu,
    /// v·(1 + tanh(√(2/π)·(v + 0.044715·v³)))/2.
    GeluTanh,
    /// v above 0, alpha·(eᵛ − 1) elsewhere.
    Elu(f64),
}

impl TryFrom<&ActivationConfig> for Activation {
    type Error = Error;

    /// # Errors
    /// [`Error::Activation`] for one that the kernels do not have.
    fn try_from(config: &ActivationConfig) -> Result<Self, Error> {
        match config {
            ActivationConfig::Identity => Ok(Self::None),
            ActivationConfig::Relu => Ok(Self::Relu),
            ActivationConfig::LeakyRelu(leaky) => Ok(Self::LeakyRelu(leaky.negative_slope)),
            ActivationConfig::HardSwish => Ok(Self::Hardswish),
            ActivationConfig::Gelu => Ok(Self::Gelu),
            ActivationConfig::GeluApproximate => Ok(Self::GeluTanh),
            ActivationConfig::Elu(elu) => Ok(Self::Elu(elu.alpha)),
            other => Err(Error::Activation { found: format!("{other:?}") }),
        }
    }
}

impl Activation {
    /// The layer's name for it.
    pub(crate) fn of_layer(self) -> config::Activation {
        match self {
            Self::None => config::Activation::None,
            Self::Relu => config::Activation::Relu,
            Self::LeakyRelu(slope) => config::Activation::LeakyRelu(slope as f32),
            Self::Relu6 => config::Activation::Relu6,
            Self::Silu => config::Activation::Silu,
            Self::Hardswish => config::Activation::Hardswish,
            Self::Gelu => config::Activation::Gelu,
            Self::GeluTanh => config::Activation::GeluTanh,
            Self::Elu(alpha) => config::Activation::Elu(alpha as f32),
        }
    }

    /// By Burn's operations.
    pub(crate) fn apply<const D: usize>(self, v: Tensor<D>) -> Tensor<D> {
        match self {
            Self::None => v,
            Self::Relu => relu(v),
            Self::LeakyRelu(slope) => leaky_relu(v, slope),
            Self::Relu6 => relu6(v),
            Self::Silu => silu(v),
            Self::Hardswish => hard_swish(v),
            Self::Gelu => gelu(v),
            Self::GeluTanh => gelu_approximate(v),
            Self::Elu(alpha) => elu(v, alpha),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::EluConfig;

    use super::*;

    #[test]
    fn burn_s_activations_are_taken_as_far_as_kernels_have_them() {
        let elu = ActivationConfig::Elu(EluConfig::new().with_alpha(0.5));
        assert_eq!(Activation::try_from(&elu), Ok(Activation::Elu(0.5)));
        let gelu = Activation::try_from(&ActivationConfig::GeluApproximate);
        assert_eq!(gelu, Ok(Activation::GeluTanh));
        let refused = Activation::try_from(&ActivationConfig::Tanh);
        assert_eq!(refused, Err(Error::Activation { found: "Tanh".to_owned() }));
    }
}
