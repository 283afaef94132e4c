//! The second half of a pass: the kernels that write its outputs once the group's sums are known,
//! `normalize` and `grad_input`.

use super::flat::{self, flat_elements};
use super::grid::Grid;
use super::run::{Run, runs, sample_runs};
use super::window::{Span, Window, windows};
use super::{Activation, DeviceCaps, Dispatch, LayerFlags, MaskOrder, Partition, Parts};
use crate::dtype::DType;
use crate::error::LimitError;
use crate::shaders::{
    DoubleGradient, FLAT_GROUP, GradInput, Kernel, Normalize, TileParams, Upstream, Variant,
    WORDS_PER_INVOCATION, WORDS_PER_MASK_WORD, WORKGROUP_SIZE,
};

/// Bytes of the largest coefficient set that a kernel reads of a channel, but in double backward.
const CENTERING_BYTES: u64 = 24;
/// Bytes of that of double backward.
const DOUBLE_CENTERING_BYTES: u64 = 64;

/// What is asked of the kernel that writes gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gradient {
    /// Whether the statistics depend on x, or are constants.
    pub batch_statistics: bool,
    /// Whether the gradient of the residual is wanted too.
    pub residual: bool,
    /// Whether the gradient of x and grad_output are one tensor.
    pub in_place: bool,
}

/// Dispatches that write an activation, one per window.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyPlan {
    /// The dispatches, the last window first: what the sums read last is read first.
    pub dispatches: Vec<Dispatch<TileParams>>,
}

impl ApplyPlan {
    /// Plans the normalization of an activation into one of the same shape and layout, or in place;
    /// `None` where it has no value.
    ///
    /// # Errors
    /// [`LimitError`] when a tile or what is kept per channel exceeds one binding, or a dispatch
    /// its workgroups.
    pub fn normalize(
        x: Activation<'_>,
        y: DType,
        caps: &DeviceCaps,
        layer: LayerFlags,
        in_place: bool,
    ) -> Result<Option<Self>, LimitError> {
        caps.check_binding(
            "mask of the activation",
            x.shape.dims(),
            Self::mask_bytes(x, layer.mask, caps),
        )?;
        let grid = Grid::new(x, x.shape, caps);
        let flat = flat_elements(x.shape, y.size_bytes(), caps, layer.mask);
        let kernel = Kernel::Normalize(Normalize {
            x: caps.storage_of_writer(x.dtype),
            y,
            elements: flat.unwrap_or(grid.elements()),
            residual: layer.epilogue.adds_residual(),
            activation: layer.epilogue.activates(),
            curved: layer.epilogue.curve().is_some(),
            mask: layer.mask,
            in_place,
        });
        Self::new(&grid, [x, Activation { dtype: y, ..x }, x], caps, kernel, layer)
    }

    /// Plans the gradient of an activation, of its shape, layout and storage type; `None` where it
    /// has no value.
    ///
    /// # Errors
    /// As [`normalize`](Self::normalize).
    pub fn gradient(
        x: Activation<'_>,
        g: Activation<'_>,
        caps: &DeviceCaps,
        layer: LayerFlags,
        wanted: Gradient,
    ) -> Result<Option<Self>, LimitError> {
        let grid = Grid::new(x, g.shape, caps);
        let flat = flat_elements(x.shape, x.dtype.size_bytes(), caps, layer.mask);
        let flat = flat.filter(|_| grid.same_layout);
        let kernel = Kernel::GradInput(GradInput {
            upstream: Upstream {
                x: caps.storage_of_writer(x.dtype),
                grad_output: caps.storage_of_writer(g.dtype),
                elements: flat.unwrap_or(grid.elements()),
                strided: grid.g_is_strided(),
                active: layer.active(),
            },
            batch_statistics: wanted.batch_statistics,
            grad_residual: wanted.residual,
            in_place: wanted.in_place,
        });
        Self::new(&grid, [x, x, g], caps, kernel, layer)
    }

    /// Plans a gradient of double backward, of the shape, layout and storage type of x, as
    /// grad_output and the cotangent are; `None` where it has no value.
    ///
    /// # Errors
    /// As [`normalize`](Self::normalize).
    pub fn double(
        x: Activation<'_>,
        caps: &DeviceCaps,
        layer: LayerFlags,
        of: DoubleGradient,
        has_cotangent: bool,
    ) -> Result<Option<Self>, LimitError> {
        let grid = Grid::new(x, x.shape, caps);
        let upstream = layer.upstream_like(x.dtype, &grid);
        let kernel = Kernel::DoubleInput { upstream, of };
        let mut plan = Self::new(&grid, [x, x, x], caps, kernel, layer)?;
        let dispatches = plan.iter_mut().flat_map(|plan| &mut plan.dispatches);
        dispatches.for_each(|dispatch| dispatch.params.has_cotangent = has_cotangent.into());
        Ok(plan)
    }

    fn new(
        grid: &Grid,
        [x, output, g]: [Activation<'_>; 3],
        caps: &DeviceCaps,
        kernel: Kernel,
        layer: LayerFlags,
    ) -> Result<Option<Self>, LimitError> {
        let mut partition = Partition::new(grid, x.dtype.size_bytes()).written(grid);
        if partition.tiles == 0 {
            return Ok(None);
        }
        // A mask by invocation lies as the kernels that sum walk.
        if layer.mask != Some(MaskOrder::ByInvocation) {
            partition = partition.with_steps_of(caps.step_lanes, grid);
        }
        let dims = x.shape.dims();
        let channels = x.shape.channels();
        let centering_bytes = match kernel {
            Kernel::DoubleInput { .. } => DOUBLE_CENTERING_BYTES,
            _ => CENTERING_BYTES,
        };
        caps.check_binding("statistics per channel", dims, channels as u64 * centering_bytes)?;
        let variant = Variant::new(kernel);
        let unit = if kernel.is_flat() { 1 } else { grid.unit };
        let (capacity, too_large) = caps.capacity(&[x, output, g], unit);
        let dispatch = |span: &Span, mut params: TileParams, workgroups: [u32; 2]| {
            layer.set(&mut params);
            Dispatch { variant, params, workgroups, parts: Parts::of(span, unit, [x, output, g]) }
        };
        let dispatches: Result<Vec<_>, LimitError> = if kernel.is_flat() {
            let most = caps.most_workgroups().saturating_mul(FLAT_GROUP);
            let runs = runs(x.shape, capacity.min(most), layer.mask).ok_or(too_large)?;
            let dispatch_of = |run: &Run| {
                let groups = u64::from(run.end_element).div_ceil(FLAT_GROUP);
                let workgroups = caps.workgroups(groups, dims)?;
                Ok(dispatch(&run.span, flat::params(run, x.shape), workgroups))
            };
            runs.iter().rev().map(dispatch_of).collect()
        } else if grid.is_quads() || output.dtype == DType::F32 {
            let windows =
                windows(&partition, grid, capacity, caps.most_workgroups()).ok_or(too_large)?;
            let dispatch_of = |window: &Window| {
                let workgroups = partition.tile_workgroups(window, dims, caps)?;
                Ok(dispatch(
                    &window.span,
                    partition.tile_params(window, grid, channels),
                    workgroups,
                ))
            };
            windows.iter().rev().map(dispatch_of).collect()
        } else {
            let words =
                if kernel.keeps_mask() { WORDS_PER_MASK_WORD } else { WORDS_PER_INVOCATION };
            let group_elements = u64::from(2 * words * WORKGROUP_SIZE);
            let capacity = capacity.min(caps.most_workgroups().saturating_mul(group_elements));
            let runs = if grid.same_layout {
                runs(x.shape, capacity, layer.mask)
            } else {
                sample_runs(x.shape, capacity)
            };
            let dispatch_of = |run: &Run| {
                let workgroups =
                    u64::from(run.end_element - run.first_element).div_ceil(group_elements);
                Ok(dispatch(
                    &run.span,
                    run.params(x.shape, g.shape),
                    caps.workgroups(workgroups, dims)?,
                ))
            };
            runs.ok_or(too_large)?.iter().rev().map(dispatch_of).collect()
        };
        Ok(Some(Self { dispatches: dispatches? }))
    }
}
