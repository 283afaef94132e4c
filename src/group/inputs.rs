//! What a call takes per rank: x, to be read or to be written over, and where the epilogue adds one, a residual.

use crate::tensor::Tensor;

/// The inputs of forward and backward, one tensor per rank each.
///
/// A plain list of tensors is one without residuals; [`Inputs::with_residuals`] adds them, each of the dimensions,
/// layout and storage type of its x.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub(crate) x: &'a [Tensor],
    pub(crate) residuals: Option<&'a [Tensor]>,
}

impl<'a> Inputs<'a> {
    /// Inputs with a residual each, for an epilogue that adds it.
    pub fn with_residuals(inputs: &'a [Tensor], residuals: &'a [Tensor]) -> Self {
        Self { x: inputs, residuals: Some(residuals) }
    }

    /// The residual of a rank.
    pub(crate) fn residual(&self, rank: usize) -> Option<&'a Tensor> {
        self.residuals.and_then(|residuals| residuals.get(rank))
    }
}

impl<'a> From<&'a [Tensor]> for Inputs<'a> {
    fn from(x: &'a [Tensor]) -> Self {
        Self { x, residuals: None }
    }
}

impl<'a> From<&'a Vec<Tensor>> for Inputs<'a> {
    fn from(x: &'a Vec<Tensor>) -> Self {
        Self { x, residuals: None }
    }
}

impl<'a, const N: usize> From<&'a [Tensor; N]> for Inputs<'a> {
    fn from(x: &'a [Tensor; N]) -> Self {
        Self { x, residuals: None }
    }
}

/// The tensors that a call in place replaces, one per rank, and residuals where the epilogue adds them.
///
/// `&mut` a list of tensors is one without residuals; [`InPlace::with_residuals`] adds them.
#[derive(Debug)]
pub struct InPlace<'a> {
    pub(crate) tensors: &'a mut [Tensor],
    pub(crate) residuals: Option<&'a [Tensor]>,
}

impl<'a> InPlace<'a> {
    /// Tensors with a residual each, for an epilogue that adds it.
    pub fn with_residuals(tensors: &'a mut [Tensor], residuals: &'a [Tensor]) -> Self {
        Self { tensors, residuals: Some(residuals) }
    }
}

impl<'a> From<&'a mut [Tensor]> for InPlace<'a> {
    fn from(tensors: &'a mut [Tensor]) -> Self {
        Self { tensors, residuals: None }
    }
}

impl<'a> From<&'a mut Vec<Tensor>> for InPlace<'a> {
    fn from(tensors: &'a mut Vec<Tensor>) -> Self {
        Self { tensors, residuals: None }
    }
}
