//! The request of double backward.

use std::marker::PhantomData;

use super::Inputs;
use crate::tensor::{List, Output, Ranks, Tensor};
#[cfg(feature = "gpu")]
use crate::workspace::Workspace;

/// The tensors that double backward reads: the inputs of a backward pass, and cotangents of its
/// results.
///
/// A cotangent is the gradient of a scalar with respect to a result of backward. One that is not
/// given is 0. Results are allocated and returned.
///
/// The gradient of the residual has no cotangent: it is g, grad_output times the derivative of the
/// activation. A program that differentiates it adds that derivative times its cotangent to the
/// gradient with respect to grad_output.
#[derive(Debug)]
#[must_use = "a request does nothing until a layer gets it"]
pub struct DoubleBackward<'a, O: Output = Tensor> {
    pub(crate) parts: DoubleParts<'a>,
    kind: PhantomData<fn() -> O>,
}

/// A [`DoubleBackward`] without the type of its result.
#[derive(Debug)]
pub(crate) struct DoubleParts<'a> {
    pub inputs: Inputs<'a>,
    pub grad_output: List<'a>,
    pub input: Option<List<'a>>,
    pub weight: Option<List<'a>>,
    pub bias: Option<List<'a>>,
}

impl<'a> DoubleBackward<'a> {
    /// Takes the x of forward, unchanged, and grad_output, the gradient of y. grad_output has the
    /// dimensions, layout and storage type of x. A backward pass need not have run.
    pub fn of<X: Ranks<'a>>(
        x: X,
        grad_output: impl Ranks<'a, Output = X::Output>,
    ) -> DoubleBackward<'a, X::Output> {
        let parts = DoubleParts {
            inputs: Inputs::of(x.list()),
            grad_output: grad_output.list(),
            input: None,
            weight: None,
            bias: None,
        };
        DoubleBackward { parts, kind: PhantomData }
    }
}

impl<'a, O: Output> DoubleBackward<'a, O> {
    /// The cotangent of the gradient of x, with the dimensions, layout and storage type of x.
    pub fn input_cotangent(mut self, cotangent: impl Ranks<'a>) -> Self {
        self.parts.input = Some(cotangent.list());
        self
    }

    /// The cotangent of the gradient of the weight, (C) f32 on each rank.
    pub fn weight_cotangent(mut self, cotangent: impl Ranks<'a>) -> Self {
        self.parts.weight = Some(cotangent.list());
        self
    }

    /// The cotangent of the gradient of the bias, (C) f32 on each rank.
    pub fn bias_cotangent(mut self, cotangent: impl Ranks<'a>) -> Self {
        self.parts.bias = Some(cotangent.list());
        self
    }

    /// The residual of forward. It is needed if
    /// [`Saved::needs_residual`](crate::Saved::needs_residual) says so.
    pub fn residual(mut self, residual: impl Ranks<'a>) -> Self {
        self.parts.inputs.residual = Some(residual.list());
        self
    }

    /// Says that x and the residual are other tensors than those of forward, with the same values:
    /// see [`Backward::recomputed`](super::Backward::recomputed).
    pub fn recomputed(mut self) -> Self {
        self.parts.inputs.recomputed = true;
        self
    }

    /// Records the pass into an encoder of the application: see
    /// [`Forward::encode`](super::Forward::encode).
    #[cfg(feature = "gpu")]
    pub fn encode(
        mut self,
        encoder: &'a mut wgpu::CommandEncoder,
        workspace: &'a mut Workspace,
    ) -> Self {
        self.parts.inputs.encode = Some((encoder, workspace));
        self
    }
}
