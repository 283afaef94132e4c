//! The mask of the activation, which forward may keep so that backward needs no residual.

use std::sync::Arc;

use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::error::Error;
use crate::gpu::{BufferSlice, Gpu, Lease, Memory};
use crate::plan::{Activation, ApplyPlan, MaskOrder};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Which values of one rank the activation was active on, a bit each, on the rank's device.
#[derive(Clone, Debug)]
pub(crate) enum Mask {
    /// Words of a buffer, which a later call uses again when this is dropped, and what their bits
    /// stand for.
    Gpu(Arc<Lease>, MaskOrder),
    /// Bit `address % 32` of word `address / 32` is 1 where v is above 0.
    Host(Arc<[u32]>),
}

impl Mask {
    /// Whether backward could read a mask of a call that normalizes x into a `y` of this storage
    /// type.
    pub fn is_possible(device: &Device, x: &Tensor, shape: &Shape, y: DType) -> bool {
        match device.kind() {
            Kind::Host(_) => true,
            Kind::Gpu(gpu) => {
                ApplyPlan::mask_order(Activation { shape, dtype: x.dtype() }, y, gpu.caps())
                    .is_some()
            }
        }
    }

    pub(super) fn on_host(shape: &Shape) -> Self {
        Self::Host(std::iter::repeat_n(0, shape.elements().div_ceil(32) as usize).collect())
    }

    pub(super) fn on_gpu(
        gpu: &Gpu,
        x: Activation<'_>,
        order: MaskOrder,
        pool: Option<&Memory>,
    ) -> Result<Self, Error> {
        let bytes = ApplyPlan::mask_bytes(x, Some(order), gpu.caps());
        Ok(Self::Gpu(Arc::new(gpu.scratch_of(pool, bytes)?), order))
    }

    pub(super) fn order(&self) -> Option<MaskOrder> {
        match self {
            Self::Gpu(_, order) => Some(*order),
            Self::Host(_) => None,
        }
    }

    pub(super) fn slice(&self) -> Option<&BufferSlice> {
        match self {
            Self::Gpu(lease, _) => Some(lease),
            Self::Host(_) => None,
        }
    }

    /// The words of a mask in host memory.
    pub(super) fn words(&self) -> Option<&[u32]> {
        match self {
            Self::Host(words) => Some(words),
            Self::Gpu(..) => None,
        }
    }

    /// The same of a mask that nobody else has yet.
    pub(super) fn words_mut(&mut self) -> Option<&mut [u32]> {
        match self {
            Self::Host(words) => Arc::get_mut(words),
            Self::Gpu(..) => None,
        }
    }

    /// Keeps its memory from later calls, unless it is of a workspace.
    pub fn retain(&self) {
        if let Self::Gpu(lease, _) = self {
            lease.retain();
        }
    }

    /// Its memory in bytes.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Gpu(lease, _) => lease.size_bytes,
            Self::Host(words) => 4 * words.len() as u64,
        }
    }
}
