//! What calls on one rank return, and where they write.

use std::slice::from_mut;

use crate::error::{ArgumentError, Error};
use crate::group::{Backward, BackwardReport, Forward, ForwardReport, GradTargets, SavedForward};
use crate::tensor::Tensor;

/// What forward returns on one rank.
#[derive(Debug)]
pub struct LayerForward {
    /// y, of the shape of the input, on its device.
    pub output: Tensor,
    /// What [`SyncBatchNorm::backward`](crate::SyncBatchNorm::backward) needs of this call.
    pub saved: SavedForward,
    /// Statistics and times of the call; `local` holds this rank's alone.
    pub report: ForwardReport,
}

/// What backward returns on one rank.
#[derive(Debug)]
pub struct LayerBackward {
    /// Gradient of the input, of its shape, on its device.
    pub grad_input: Tensor,
    /// Gradient of the weight, (C); `None` without a weight or where it is frozen.
    pub grad_weight: Option<Tensor>,
    /// Gradient of the bias, (C); `None` without a bias or where it is frozen.
    pub grad_bias: Option<Tensor>,
    /// Gradient of the residual; `None` without one.
    pub grad_residual: Option<Tensor>,
    /// Sums and times of the call; `local` holds this rank's alone.
    pub report: BackwardReport,
}

/// Where backward writes on one rank; `None` for what is not wanted.
#[derive(Debug, Default)]
pub struct LayerGradTargets<'a> {
    /// Gradient of the input, of its shape.
    pub grad_input: Option<&'a mut Tensor>,
    /// Gradient of the weight, (C).
    pub grad_weight: Option<&'a mut Tensor>,
    /// Gradient of the bias, (C).
    pub grad_bias: Option<&'a mut Tensor>,
    /// Gradient of the residual, of the shape of the input.
    pub grad_residual: Option<&'a mut Tensor>,
}

impl<'a> LayerGradTargets<'a> {
    /// As lists of one rank.
    pub(super) fn into_lists(self) -> GradTargets<'a> {
        GradTargets {
            grad_inputs: self.grad_input.map(from_mut),
            grad_weights: self.grad_weight.map(from_mut),
            grad_biases: self.grad_bias.map(from_mut),
            grad_residuals: self.grad_residual.map(from_mut),
        }
    }
}

pub(super) fn single_forward(forward: Forward) -> Result<LayerForward, Error> {
    let Forward { outputs, saved, report } = forward;
    Ok(LayerForward { output: single("outputs", outputs)?, saved, report })
}

pub(super) fn single_backward(backward: Backward) -> Result<LayerBackward, Error> {
    let Backward { grad_inputs, grad_weights, grad_biases, grad_residuals, report } = backward;
    Ok(LayerBackward {
        grad_input: single("grad_inputs", grad_inputs)?,
        grad_weight: grad_weights.map(|tensors| single("grad_weights", tensors)).transpose()?,
        grad_bias: grad_biases.map(|tensors| single("grad_biases", tensors)).transpose()?,
        grad_residual: grad_residuals.map(|tensors| single("grad_residuals", tensors)).transpose()?,
        report,
    })
}

/// The one tensor of a group of one device.
fn single(argument: &'static str, mut tensors: Vec<Tensor>) -> Result<Tensor, Error> {
    let found = tensors.len();
    tensors.pop().ok_or_else(|| ArgumentError::RankCount { argument, found, expected: 1 }.into())
}
