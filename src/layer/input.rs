//! What a call takes on one rank: x, and where the epilogue adds one, a residual.

use std::slice::{from_mut, from_ref};

use super::SyncBatchNorm;
use crate::group::{ForwardRequest, Inputs};
use crate::tensor::Tensor;

/// The input of one rank: x, and where the epilogue adds one, a residual of the same dimensions, layout and storage type.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    x: &'a Tensor,
    residual: Option<&'a Tensor>,
}

impl<'a> Input<'a> {
    /// An input with a residual, for an epilogue that adds it.
    pub fn with_residual(x: &'a Tensor, residual: &'a Tensor) -> Self {
        Self { x, residual: Some(residual) }
    }

    /// As a list of one rank.
    pub(super) fn as_list(self) -> Inputs<'a> {
        let x = from_ref(self.x);
        self.residual.map_or(x.into(), |residual| Inputs::with_residuals(x, from_ref(residual)))
    }
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self { x, residual: None }
    }
}

/// One layer of [`SyncBatchNorm::forward_train_many`]: what it reads and where it writes.
#[derive(Debug)]
pub struct LayerRequest<'a> {
    layer: &'a mut SyncBatchNorm,
    x: Input<'a>,
    output: &'a mut Tensor,
}

impl<'a> LayerRequest<'a> {
    /// As [`SyncBatchNorm::forward_train_into`] takes them.
    pub fn new(layer: &'a mut SyncBatchNorm, x: impl Into<Input<'a>>, output: &'a mut Tensor) -> Self {
        Self { layer, x: x.into(), output }
    }

    /// As lists of one rank.
    pub(super) fn into_lists(self) -> ForwardRequest<'a> {
        ForwardRequest::new(&mut self.layer.rank, self.x.as_list(), from_mut(self.output))
    }
}
