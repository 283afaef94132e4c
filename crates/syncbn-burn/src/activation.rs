//! What follows normalization in the same kernel, and the same by Burn's operations.

use burn::config::Config;
use burn::tensor::Tensor;
use burn::tensor::activation::{leaky_relu, relu};
use syncbn::config::Epilogue;

use crate::error::Error;

/// The activation of a normalization, computed by the kernel that normalizes.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum Activation {
    /// None.
    None,
    /// max(v, 0).
    Relu,
    /// v above 0, slope·v elsewhere; not after a residual.
    LeakyRelu(f64),
}

impl Activation {
    /// The layer's name for it, with or without a residual.
    ///
    /// # Errors
    /// [`Error::Setting`] for a leaky activation after a residual, which the kernels do not have.
    pub(crate) fn epilogue(self, adds_residual: bool) -> Result<Epilogue, Error> {
        match (self, adds_residual) {
            (Self::None, false) => Ok(Epilogue::None),
            (Self::None, true) => Ok(Epilogue::Add),
            (Self::Relu, false) => Ok(Epilogue::Relu),
            (Self::Relu, true) => Ok(Epilogue::AddRelu),
            (Self::LeakyRelu(slope), false) => Ok(Epilogue::LeakyRelu(slope as f32)),
            (Self::LeakyRelu(slope), true) => Err(Error::Setting {
                name: "the slope of an activation after a residual",
                found: slope,
                allowed: "no slope: Activation::Relu or Activation::None",
            }),
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
