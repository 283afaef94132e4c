//! The second half of a pass: what is written once the group's sums are known.

use super::{DeviceCaps, Dispatch, F32_BYTES, Partition, Role};
use crate::error::LimitError;
use crate::shaders::{Kernel, TileParams};
use crate::shape::Shape;

/// One dispatch that walks all tiles of one rank and writes an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyPlan {
    /// The dispatch.
    pub dispatch: Dispatch<TileParams>,
}

impl ApplyPlan {
    /// Plans the normalization of an f32 activation; `None` where it has no value.
    ///
    /// # Errors
    /// [`LimitError`] when a buffer exceeds one binding or a dispatch its workgroups.
    pub fn normalize(shape: &Shape, caps: &DeviceCaps, weight: bool, bias: bool) -> Result<Option<Self>, LimitError> {
        let roles = &[Role::Input, Role::Centering, Role::Weight, Role::Bias, Role::Output];
        let flags = |params| TileParams { has_weight: weight.into(), has_bias: bias.into(), ..params };
        Self::new(shape, caps, Kernel::Normalize, roles, flags)
    }

    /// Plans the gradient of an f32 activation, with statistics that depend on it or are constants; `None` where it
    /// has no value.
    ///
    /// # Errors
    /// As [`normalize`](Self::normalize).
    pub fn grad_input(
        shape: &Shape,
        caps: &DeviceCaps,
        weight: bool,
        batch_statistics: bool,
    ) -> Result<Option<Self>, LimitError> {
        let roles = &[Role::GradOutput, Role::Input, Role::Centering, Role::Weight, Role::GradInput];
        let has_batch_statistics = batch_statistics.into();
        let flags = |params| TileParams { has_weight: weight.into(), has_batch_statistics, ..params };
        Self::new(shape, caps, Kernel::GradInput, roles, flags)
    }

    fn new(
        shape: &Shape,
        caps: &DeviceCaps,
        kernel: Kernel,
        roles: &'static [Role],
        flags: impl FnOnce(TileParams) -> TileParams,
    ) -> Result<Option<Self>, LimitError> {
        caps.check_binding("x", shape.dims(), shape.elements().saturating_mul(F32_BYTES))?;
        let partition = Partition::new(shape, F32_BYTES);
        if partition.tiles == 0 {
            return Ok(None);
        }
        let (params, workgroups) = partition.tile_dispatch(shape, caps)?;
        Ok(Some(Self { dispatch: Dispatch { kernel, params: flags(params), workgroups, roles } }))
    }
}
