//! The second half of a pass: what is written once the group's sums are known.

use super::run::{Run, runs, sample_runs};
use super::window::{Span, Window, windows};
use super::{Activation, DeviceCaps, Dispatch, LayerFlags, Partition, Parts, Role};
use crate::dtype::DType;
use crate::error::LimitError;
use crate::shaders::{Kernel, TileParams, Variant, WORDS_PER_INVOCATION, WORKGROUP_SIZE};

/// Bytes per channel of what the kernel that is told most gets from the host.
const CENTERING_BYTES: u64 = 20;

/// Elements that one workgroup of a kernel that owns words writes.
const RUN_ELEMENTS: u64 = 2 * (WORDS_PER_INVOCATION * WORKGROUP_SIZE) as u64;

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

/// Dispatches that write an activation, one per window.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyPlan {
    /// The dispatches, the last window first: what the sums read last is read first.
    pub dispatches: Vec<Dispatch<TileParams>>,
}

impl ApplyPlan {
    /// Plans the normalization of an activation into one of the same shape and layout; `None` where it has no value.
    ///
    /// # Errors
    /// [`LimitError`] when a tile or what is kept per channel exceeds one binding, or a dispatch its workgroups.
    pub fn normalize(
        x: Activation<'_>,
        y: DType,
        caps: &DeviceCaps,
        layer: LayerFlags,
    ) -> Result<Option<Self>, LimitError> {
        let roles = &[Role::Input, Role::Residual, Role::Centering, Role::Weight, Role::Bias, Role::Output];
        let kernel = if y == DType::F32 { Kernel::Normalize } else { Kernel::NormalizeWords };
        Self::new([x, Activation { dtype: y, ..x }], x, caps, Variant::new(kernel), roles, |params| {
            layer.set(params, true);
        })
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
        let kernel = match (x.dtype, grad_residual) {
            (DType::F32, false) => Kernel::GradInput,
            (DType::F32, true) => Kernel::GradInputAndResidual,
            (_, false) => Kernel::GradInputWords,
            (_, true) => Kernel::GradInputAndResidualWords,
        };
        let roles = if grad_residual { &GRADIENT_ROLES[..] } else { GRADIENT_ROLES.split_at(7).0 };
        let variant = Variant { grad_output: caps.storage(g.dtype), ..Variant::new(kernel) };
        Self::new([x, x], g, caps, variant, roles, |params| {
            layer.set(params, layer.epilogue.activates());
            params.has_batch_statistics = batch_statistics.into();
        })
    }

    fn new(
        [x, output]: [Activation<'_>; 2],
        g: Activation<'_>,
        caps: &DeviceCaps,
        variant: Variant,
        roles: &'static [Role],
        set_flags: impl Fn(&mut TileParams),
    ) -> Result<Option<Self>, LimitError> {
        let partition = Partition::new(x);
        if partition.tiles == 0 {
            return Ok(None);
        }
        let channels = x.shape.channels() as u64;
        caps.check_binding("statistics per channel", x.shape.dims(), channels * CENTERING_BYTES)?;
        let variant = Variant { x: caps.storage(x.dtype), writes_bf16: output.dtype == DType::BF16, ..variant };
        let (capacity, too_large) = caps.capacity(&[x, output, g]);
        let dispatch = |parts: Parts, mut params: TileParams, workgroups: [u32; 2]| {
            set_flags(&mut params);
            Dispatch { variant, params, workgroups, roles, parts }
        };
        let parts = |x_span: &Span, g_span: &Span| Parts::of([(x_span, x), (x_span, output), (g_span, g)]);
        let dispatches: Result<Vec<_>, LimitError> = if output.dtype == DType::F32 {
            let windows = windows(&partition, x.shape, g.shape, capacity, caps.most_workgroups()).ok_or(too_large)?;
            let dispatch_of = |window: &Window| {
                let workgroups = partition.tile_workgroups(window, x.shape, caps)?;
                let params = partition.tile_params(window, x.shape, g.shape);
                Ok(dispatch(parts(&window.x, &window.g), params, workgroups))
            };
            windows.iter().rev().map(dispatch_of).collect()
        } else {
            let follows = x.shape.strides() == g.shape.strides();
            let capacity = capacity.min(caps.most_workgroups().saturating_mul(RUN_ELEMENTS));
            let runs = if follows { runs(x.shape, capacity) } else { sample_runs(x.shape, capacity) };
            let dispatch_of = |run: &Run| {
                let params = run.word_params(x.shape, g.shape);
                let workgroups = u64::from(run.end_element - run.first_element).div_ceil(RUN_ELEMENTS);
                Ok(dispatch(parts(&run.x, &run.g), params, caps.workgroups(workgroups, x.shape.dims())?))
            };
            runs.ok_or(too_large)?.iter().rev().map(dispatch_of).collect()
        };
        Ok(Some(Self { dispatches: dispatches? }))
    }
}
