//! The mask of the activation: what forward may keep so that backward needs no residual.

use std::sync::Arc;

use super::View;
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::Error;
use crate::gpu::Lease;
use crate::plan::{ApplyPlan, MaskOrder};

/// On which side of the activation the values of one rank were, a bit each, on the rank's device.
#[derive(Clone, Debug)]
pub(crate) enum Mask {
    /// Words of a buffer, which a later call uses again when this is dropped, and what their bits stand for.
    Gpu(Arc<Lease>, MaskOrder),
    /// Bit `address % 32` of word `address / 32` is 1 where v is above 0.
    Host(Arc<[u32]>),
}

impl Mask {
    /// A mask of any contents for a call that normalizes x into `y`; `None` where backward could not read one.
    pub fn new(x: View<'_>, y: DType) -> Result<Option<Self>, Error> {
        Ok(match x.tensor.device().kind() {
            Kind::Host(_) => {
                Some(Self::Host(std::iter::repeat_n(0, x.shape.elements().div_ceil(32) as usize).collect()))
            }
            Kind::Gpu(gpu) => match ApplyPlan::mask_order(x.activation(), y, gpu.caps()) {
                Some(order) => {
                    let bytes = ApplyPlan::mask_bytes(x.activation(), Some(order), gpu.caps());
                    Some(Self::Gpu(Arc::new(gpu.scratch(bytes)?), order))
                }
                None => None,
            },
        })
    }

    /// No later call uses its memory again.
    pub fn keep_out(&self) {
        if let Self::Gpu(lease, _) = self {
            lease.set_comes_back(false);
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
