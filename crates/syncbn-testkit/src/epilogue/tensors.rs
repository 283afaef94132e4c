//! The tensors of a call.

use syncbn::{Backward, Forward, Tensor};

/// Inputs of a forward call and its backward.
#[derive(Debug)]
pub struct Tensors {
    pub x: Vec<Tensor>,
    pub residuals: Option<Vec<Tensor>>,
    pub g: Vec<Tensor>,
}

impl Tensors {
    /// x, with the residual where there is one.
    pub fn forward(&self) -> Forward<'_, Vec<Tensor>> {
        forward_of(&self.x, self.residuals.as_deref())
    }

    /// x and the upstream gradient, with the residual where there is one.
    pub fn backward(&self) -> Backward<'_, Vec<Tensor>> {
        let Some(residuals) = &self.residuals else { return self.backward_without() };
        self.backward_without().residual(residuals)
    }

    /// x and the upstream gradient alone.
    pub fn backward_without(&self) -> Backward<'_, Vec<Tensor>> {
        Backward::of(&self.x, &self.g)
    }
}

/// x, with a residual where there is one.
pub fn forward_of<'a>(
    x: &'a [Tensor],
    residuals: Option<&'a [Tensor]>,
) -> Forward<'a, Vec<Tensor>> {
    let Some(residuals) = residuals else { return Forward::of(x) };
    Forward::of(x).residual(residuals)
}
