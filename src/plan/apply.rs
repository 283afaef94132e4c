//! The second half of a pass: what is written once the group's sums are known.

use super::grid::Grid;
use super::run::{Run, runs, sample_runs};
use super::window::{Span, Window, windows};
use super::{Activation, DeviceCaps, Dispatch, LayerFlags, MaskOrder, Partition, Parts, Role};
use crate::dtype::DType;
use crate::error::LimitError;
use crate::shaders::{
    Constants, Kernel, Storage, TileParams, Variant, WORDS_PER_INVOCATION, WORDS_PER_MASK_WORD, WORKGROUP_SIZE,
};

/// Bytes per channel of what the kernel that is told most gets from the host.
const CENTERING_BYTES: u64 = 20;

/// Roles of the kernels that normalize; the last where a mask is kept.
const NORMALIZE_ROLES: [Role; 7] =
    [Role::Input, Role::Residual, Role::Centering, Role::Weight, Role::Bias, Role::Output, Role::Mask];

/// Roles of the kernels that write gradients; the last where the residual's is wanted.
const fn gradient_roles(side: Role) -> [Role; 8] {
    use Role::{Bias, Centering, GradInput, GradOutput, GradResidual, Input, Weight};
    [GradOutput, Input, side, Centering, Weight, Bias, GradInput, GradResidual]
}

/// Where the residual decides on the side of the activation, and where a mask does.
const GRADIENT_ROLES: [[Role; 8]; 2] = [gradient_roles(Role::Residual), gradient_roles(Role::Mask)];

/// What is asked of the kernel that writes gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gradient {
    /// Whether the statistics depend on x, or are constants.
    pub batch_statistics: bool,
    /// Whether the gradient of the residual is wanted too.
    pub residual: bool,
    /// Whether the gradient of x is written over grad_output.
    pub in_place: bool,
}

/// Dispatches that write an activation, one per window.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyPlan {
    /// The dispatches, the last window first: what the sums read last is read first.
    pub dispatches: Vec<Dispatch<TileParams>>,
}

impl ApplyPlan {
    /// Plans the normalization of an activation into one of the same shape and layout, or over itself; `None` where it has
    /// no value.
    ///
    /// # Errors
    /// [`LimitError`] when a tile or what is kept per channel exceeds one binding, or a dispatch its workgroups.
    pub fn normalize(
        x: Activation<'_>,
        y: DType,
        caps: &DeviceCaps,
        layer: LayerFlags,
        in_place: bool,
    ) -> Result<Option<Self>, LimitError> {
        let (mask, bytes) = (layer.mask.is_some(), Self::mask_bytes(x, layer.mask, caps));
        caps.check_binding("mask of the activation", x.shape.dims(), bytes)?;
        let roles = if mask { &NORMALIZE_ROLES[..] } else { NORMALIZE_ROLES.split_at(6).0 };
        let grid = Grid::new(x, x.shape, caps);
        let quads = grid.is_quads();
        let kernel = if quads || y == DType::F32 { Kernel::Normalize } else { Kernel::NormalizeWords };
        let constants = layer.constants(&grid, true);
        let variant = Variant { mask, in_place, quads, constants, ..Variant::new(kernel) };
        Self::new(&grid, [x, Activation { dtype: y, ..x }, x], caps, variant, roles, layer)
    }

    /// How the mask of an activation lies that is normalized into `y`; `None` where backward's kernels could not read it:
    /// they write as x is stored, and 16-bit gradients of single values need the mask by address.
    pub fn mask_order(x: Activation<'_>, y: DType, caps: &DeviceCaps) -> Option<MaskOrder> {
        match (x.dtype, y) {
            _ if Grid::new(x, x.shape, caps).is_quads() => Some(MaskOrder::ByInvocation),
            (DType::F32, DType::F32) => Some(MaskOrder::ByInvocation),
            (_, DType::F32) => None,
            _ => Some(MaskOrder::ByAddress),
        }
    }

    /// Bytes of a mask of an activation: one bit per value, of whole tiles or of whole words.
    pub fn mask_bytes(x: Activation<'_>, order: Option<MaskOrder>, caps: &DeviceCaps) -> u64 {
        match order {
            None => 0,
            Some(MaskOrder::ByAddress) => x.shape.elements().div_ceil(32) * 4,
            Some(MaskOrder::ByInvocation) => {
                let grid = Grid::new(x, x.shape, caps);
                let partition = Partition::new(&grid, x.dtype.size_bytes()).written(&grid);
                // Of an invocation: 16 quads, or 32 single values.
                let words = if grid.is_quads() { 2 } else { 1 };
                partition.tiles.saturating_mul(partition.blocks * u64::from(WORKGROUP_SIZE) * words * 4)
            }
        }
    }

    /// Plans the gradient of an activation, of its shape, layout and storage type; `None` where it has no value.
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
        let kernel = match (grid.is_quads() || x.dtype == DType::F32, wanted.residual) {
            (true, false) => Kernel::GradInput,
            (true, true) => Kernel::GradInputAndResidual,
            (false, false) => Kernel::GradInputWords,
            (false, true) => Kernel::GradInputAndResidualWords,
        };
        let roles = &GRADIENT_ROLES[usize::from(layer.mask.is_some())];
        let roles = if wanted.residual { &roles[..] } else { roles.split_at(7).0 };
        let grad_output = if wanted.in_place { packed(g.dtype) } else { caps.storage(g.dtype) };
        let (mask, in_place) = (layer.mask.is_some(), wanted.in_place);
        let (quads, g_apart) = (grid.is_quads(), grid.is_quads() && !grid.same_layout);
        let constants = Constants { batch_statistics: wanted.batch_statistics, ..layer.backward_constants(&grid) };
        let variant = Variant { grad_output, mask, in_place, quads, g_apart, constants, ..Variant::new(kernel) };
        Self::new(&grid, [x, x, g], caps, variant, roles, layer)
    }

    fn new(
        grid: &Grid,
        [x, output, g]: [Activation<'_>; 3],
        caps: &DeviceCaps,
        variant: Variant,
        roles: &'static [Role],
        layer: LayerFlags,
    ) -> Result<Option<Self>, LimitError> {
        let partition = Partition::new(grid, x.dtype.size_bytes()).written(grid);
        if partition.tiles == 0 {
            return Ok(None);
        }
        let (dims, channels) = (x.shape.dims(), x.shape.channels());
        caps.check_binding("statistics per channel", dims, channels as u64 * CENTERING_BYTES)?;
        // A kernel decodes f16 in one way only.
        let x_storage = if variant.in_place { packed(x.dtype) } else { caps.storage(x.dtype) };
        let writes_bf16 = output.dtype == DType::BF16;
        let writes_quads_of_words = variant.quads && output.dtype != DType::F32;
        let variant = Variant { x: x_storage, writes_bf16, writes_quads_of_words, ..variant };
        let (capacity, too_large) = caps.capacity(&[x, output, g], grid.unit);
        let dispatch = |span: &Span, mut params: TileParams, workgroups: [u32; 2]| {
            layer.set(&mut params);
            Dispatch { variant, params, workgroups, roles, parts: Parts::of(span, grid.unit, [x, output, g]) }
        };
        let dispatches: Result<Vec<_>, LimitError> = if grid.is_quads() || output.dtype == DType::F32 {
            let windows = windows(&partition, grid, capacity, caps.most_workgroups()).ok_or(too_large)?;
            let dispatch_of = |window: &Window| {
                let workgroups = partition.tile_workgroups(window, dims, caps)?;
                Ok(dispatch(&window.span, partition.tile_params(window, grid, channels), workgroups))
            };
            windows.iter().rev().map(dispatch_of).collect()
        } else {
            let words =
                if variant.mask && roles.contains(&Role::Output) { WORDS_PER_MASK_WORD } else { WORDS_PER_INVOCATION };
            let group_elements = u64::from(2 * words * WORKGROUP_SIZE);
            let capacity = capacity.min(caps.most_workgroups().saturating_mul(group_elements));
            let runs = if grid.same_layout { runs(x.shape, capacity) } else { sample_runs(x.shape, capacity) };
            let dispatch_of = |run: &Run| {
                let workgroups = u64::from(run.end_element - run.first_element).div_ceil(group_elements);
                Ok(dispatch(&run.span, run.word_params(x.shape, g.shape), caps.workgroups(workgroups, dims)?))
            };
            runs.ok_or(too_large)?.iter().rev().map(dispatch_of).collect()
        };
        Ok(Some(Self { dispatches: dispatches? }))
    }
}

/// How words that are written over are read: never as the device's own f16.
fn packed(dtype: DType) -> Storage {
    match dtype {
        DType::F32 => Storage::F32,
        DType::F16 => Storage::F16,
        DType::BF16 => Storage::BF16,
    }
}
