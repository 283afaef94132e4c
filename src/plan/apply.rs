//! The second half of a pass: what is written once the group's sums are known.

use super::{Activation, DeviceCaps, Dispatch, LayerFlags, Partition, Role};
use crate::dtype::DType;
use crate::error::LimitError;
use crate::shaders::{Kernel, TileParams, Variant, WORDS_PER_INVOCATION, WORKGROUP_SIZE};
use crate::shape::Shape;

/// Bytes per channel of what the kernel that is told most gets from the host.
const CENTERING_BYTES: u64 = 20;

/// Roles of the kernels that write gradients; the last where the residual's is wanted.
const GRADIENT_ROLES: [Role; 8] = [
    Role::GradOutput,
    Role::Input,
    Role::Residual,
    Role::Centering,
    Role::Weight,
    Role::Bias,
    Role::GradInput,
    Role::GradResidual,
];

/// One dispatch that writes an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyPlan {
    /// The dispatch.
    pub dispatch: Dispatch<TileParams>,
}

impl ApplyPlan {
    /// Plans the normalization of an activation into one of the same shape and layout; `None` where it has no value.
    ///
    /// # Errors
    /// [`LimitError`] when a buffer exceeds one binding or a dispatch its workgroups.
    pub fn normalize(
        x: Activation<'_>,
        y: DType,
        caps: &DeviceCaps,
        layer: LayerFlags,
    ) -> Result<Option<Self>, LimitError> {
        let roles = &[Role::Input, Role::Residual, Role::Centering, Role::Weight, Role::Bias, Role::Output];
        let kernel = if y == DType::F32 { Kernel::Normalize } else { Kernel::NormalizeWords };
        let plan = Self::new(x, x.shape, y, caps, Variant::new(kernel), roles)?;
        Ok(plan.map(|mut plan| {
            layer.set(&mut plan.dispatch.params, true);
            plan
        }))
    }

    /// Plans the gradient of an activation, of its shape, layout and storage type, with statistics that depend on it or
    /// are constants, and beside it the gradient of the residual where it is wanted; `None` where it has no value.
    ///
    /// # Errors
    /// As [`normalize`](Self::normalize).
    pub fn grad_input(
        x: Activation<'_>,
        g: Activation<'_>,
        caps: &DeviceCaps,
        layer: LayerFlags,
        batch_statistics: bool,
        grad_residual: bool,
    ) -> Result<Option<Self>, LimitError> {
        caps.check_activation("grad_output", g)?;
        let kernel = match (x.dtype, grad_residual) {
            (DType::F32, false) => Kernel::GradInput,
            (DType::F32, true) => Kernel::GradInputAndResidual,
            (_, false) => Kernel::GradInputWords,
            (_, true) => Kernel::GradInputAndResidualWords,
        };
        let roles = if grad_residual { &GRADIENT_ROLES[..] } else { GRADIENT_ROLES.split_at(7).0 };
        let variant = Variant { grad_output: caps.storage(g.dtype), ..Variant::new(kernel) };
        let plan = Self::new(x, g.shape, x.dtype, caps, variant, roles)?;
        Ok(plan.map(|mut plan| {
            layer.set(&mut plan.dispatch.params, layer.epilogue.activates());
            plan.dispatch.params.has_batch_statistics = batch_statistics.into();
            plan
        }))
    }

    fn new(
        x: Activation<'_>,
        g: &Shape,
        output: DType,
        caps: &DeviceCaps,
        variant: Variant,
        roles: &'static [Role],
    ) -> Result<Option<Self>, LimitError> {
        caps.check_activation("x", x)?;
        caps.check_activation("output", Activation { dtype: output, ..x })?;
        let partition = Partition::new(x);
        if partition.tiles == 0 {
            return Ok(None);
        }
        let channels = x.shape.channels() as u64;
        caps.check_binding("statistics per channel", x.shape.dims(), channels * CENTERING_BYTES)?;
        let workgroups = if output == DType::F32 {
            partition.tile_workgroups(x.shape, caps)?
        } else {
            let elements = 2 * u64::from(WORDS_PER_INVOCATION * WORKGROUP_SIZE);
            caps.workgroups(x.shape.elements().div_ceil(elements), x.shape.dims())?
        };
        let variant = Variant { x: caps.storage(x.dtype), writes_bf16: output == DType::BF16, ..variant };
        let params = partition.tile_params(x.shape, g);
        Ok(Some(Self { dispatch: Dispatch { variant, params, workgroups, roles } }))
    }
}
