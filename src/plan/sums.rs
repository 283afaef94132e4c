//! The first half of a pass: sums over one rank, of its tiles and then of their combination.

use super::grid::Grid;
use super::window::windows;
use super::{Activation, CHANNEL_SUMS_BYTES, DeviceCaps, Dispatch, LayerFlags, Partition, Parts, Role};
use crate::error::LimitError;
use crate::shaders::{CombineParams, Constants, Kernel, TileParams, Variant};

/// Roles of the gradient's partial kernel, up to where it writes.
const fn gradient_roles(side: Role, output: Role) -> [Role; 7] {
    [Role::GradOutput, Role::Input, side, Role::Centering, Role::Weight, Role::Bias, output]
}

/// Where the residual decides on the side of the activation, and where a mask does: to the rank's sums, to the tiles'.
const GRADIENT: [[[Role; 7]; 2]; 2] = [
    [gradient_roles(Role::Residual, Role::Local), gradient_roles(Role::Residual, Role::Tiles)],
    [gradient_roles(Role::Mask, Role::Local), gradient_roles(Role::Mask, Role::Tiles)],
];

/// Local statistics or local gradient sums of one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct SumsPlan {
    /// Sums of every tile, window by window. Where a channel has one tile, these are the rank's.
    pub partials: Vec<Dispatch<TileParams>>,
    /// Sums of the rank; `None` where a channel has one tile.
    pub combine: Option<Dispatch<CombineParams>>,
    /// Bytes of the scratch buffer in [`Role::Tiles`]; 0 without `combine`.
    pub tiles_bytes: u64,
    /// Bytes of the result in [`Role::Local`].
    pub local_bytes: u64,
}

impl SumsPlan {
    /// Plans the local statistics of an activation; `None` where it has no value.
    ///
    /// # Errors
    /// [`LimitError`] when a tile, or what is kept per tile or channel, exceeds one binding, or a dispatch its workgroups.
    pub fn statistics(x: Activation<'_>, caps: &DeviceCaps) -> Result<Option<Self>, LimitError> {
        let roles: [&[Role]; 2] = [&[Role::Input, Role::Local], &[Role::Input, Role::Tiles]];
        Self::new(x, x, caps, [Kernel::PartialStats, Kernel::CombineStats], roles)
    }

    /// Plans the local gradient sums of an activation with its upstream gradient; `None` where it has no value.
    ///
    /// # Errors
    /// As [`statistics`](Self::statistics).
    pub fn gradient(
        x: Activation<'_>,
        g: Activation<'_>,
        caps: &DeviceCaps,
        layer: LayerFlags,
    ) -> Result<Option<Self>, LimitError> {
        let kernels = [Kernel::PartialGradSums, Kernel::CombineGradSums];
        let [whole, tiled] = &GRADIENT[usize::from(layer.mask.is_some())];
        let plan = Self::new(x, g, caps, kernels, [whole, tiled])?;
        let constants = layer.backward_constants(&Grid::new(x, g.shape, caps));
        Ok(plan.map(|mut plan| {
            for partial in &mut plan.partials {
                partial.variant = Variant { mask: layer.mask.is_some(), constants, ..partial.variant };
                layer.set(&mut partial.params);
            }
            plan
        }))
    }

    /// `roles` are those of the partial kernel where it writes the rank's sums, and where it writes the tiles'.
    fn new(
        x: Activation<'_>,
        g: Activation<'_>,
        caps: &DeviceCaps,
        [partial, combine]: [Kernel; 2],
        [whole, tiled]: [&'static [Role]; 2],
    ) -> Result<Option<Self>, LimitError> {
        let grid = Grid::new(x, g.shape, caps);
        let partition = Partition::new(&grid, x.dtype.size_bytes());
        if partition.tiles == 0 {
            return Ok(None);
        }
        let (dims, channels) = (x.shape.dims(), x.shape.channels());
        let local_bytes = channels as u64 * CHANNEL_SUMS_BYTES;
        caps.check_binding("sums per channel", dims, local_bytes)?;
        let is_tiled = partition.tiles > 1;
        let tiles_bytes = if is_tiled { partition.tiles.saturating_mul(local_bytes) } else { 0 };
        caps.check_binding("scratch for the tiles", dims, tiles_bytes)?;
        let constants = Constants { four_channels: grid.four_channels, ..Constants::default() };
        let (storage, quads) = (caps.storage(x.dtype), grid.is_quads());
        let subgroups = caps.subgroups && partition.has_fours() && !grid.four_channels;
        let mut variant = Variant { x: storage, quads, subgroups, constants, ..Variant::new(partial) };
        if partial == Kernel::PartialGradSums {
            variant.grad_output = caps.storage(g.dtype);
            variant.g_apart = grid.is_quads() && !grid.same_layout;
        }
        let (capacity, too_large) = caps.capacity(&[x, g], grid.unit);
        let windows = windows(&partition, &grid, capacity, caps.most_workgroups()).ok_or(too_large)?;
        let partials = windows.iter().map(|window| {
            let parts = Parts::of(&window.span, grid.unit, [x, x, g]);
            let params = partition.tile_params(window, &grid, channels);
            let workgroups = partition.tile_workgroups(window, dims, caps)?;
            Ok(Dispatch { variant, params, workgroups, roles: if is_tiled { tiled } else { whole }, parts })
        });
        let partials = partials.collect::<Result<Vec<_>, LimitError>>()?;
        let mut combine_plan = None;
        if is_tiled {
            let (params, workgroups) = partition.combine_dispatch(x.shape, &grid, caps)?;
            let (variant, roles) = (Variant::new(combine), &[Role::Tiles, Role::Local]);
            combine_plan = Some(Dispatch { variant, params, workgroups, roles, parts: Parts::NONE });
        }
        Ok(Some(Self { partials, combine: combine_plan, tiles_bytes, local_bytes }))
    }
}
