//! The two kinds of layers behind one call.

use pollster::block_on;
use syncbn::{
    BatchNorm, Device, DoubleBackward, DoubleGradients, Error, Forward, Saved, SyncBatchNorm,
    Tensor,
};

use crate::epilogue::problem::Uses;

/// The layer of a call: over ranks, or on one GPU.
#[derive(Clone, Copy)]
pub enum On<'l> {
    Ranks(&'l SyncBatchNorm),
    OneGpu(&'l BatchNorm),
}

impl<'l> From<&'l SyncBatchNorm> for On<'l> {
    fn from(layer: &'l SyncBatchNorm) -> Self {
        Self::Ranks(layer)
    }
}

impl<'l> From<&'l BatchNorm> for On<'l> {
    fn from(layer: &'l BatchNorm) -> Self {
        Self::OneGpu(layer)
    }
}

impl On<'_> {
    pub fn devices(self, ranks: usize) -> Vec<Device> {
        match self {
            Self::Ranks(layer) => layer.devices().to_vec(),
            Self::OneGpu(layer) => vec![layer.device().clone(); ranks],
        }
    }

    pub fn saved(self, forward: Forward<'_, Vec<Tensor>>, uses: Uses) -> Result<Saved, Error> {
        let done = match (self, uses) {
            (Self::Ranks(layer), Uses::Running) => block_on(layer.forward_eval(forward)),
            (Self::Ranks(layer), Uses::Group) => block_on(layer.forward_train(forward)),
            (Self::OneGpu(layer), Uses::Running) => layer.forward_eval(forward),
            (Self::OneGpu(layer), Uses::Group) => layer.forward_train(forward),
        };
        Ok(done?.saved)
    }

    pub fn double_backward(
        self,
        saved: &Saved,
        request: DoubleBackward<'_, Vec<Tensor>>,
    ) -> Result<DoubleGradients<Vec<Tensor>>, Error> {
        match self {
            Self::Ranks(layer) => block_on(layer.double_backward(saved, request)),
            Self::OneGpu(layer) => layer.double_backward(saved, request),
        }
    }
}
