//! The inputs of a forward call that backward and double backward read again.

use super::Encode;
use crate::tensor::{List, Tensor};

/// The inputs of a forward call, given again, and where the pass is recorded.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub x: List<'a>,
    pub residual: Option<List<'a>>,
    /// Whether they are other tensors than those of forward, with the same values.
    pub recomputed: bool,
    pub encode: Encode<'a>,
}

impl<'a> Inputs<'a> {
    pub fn of(x: List<'a>) -> Self {
        Self { x, residual: None, recomputed: false, encode: None }
    }

    /// Bytes of every x together.
    pub fn bytes(&self) -> u64 {
        self.x.iter().map(Tensor::size_bytes).sum()
    }
}
