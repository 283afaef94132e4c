//! The first half of a pass: sums over one rank, of its tiles and then of their combination.

use super::grid::Grid;
use super::window::windows;
use super::{Activation, CHANNEL_SUMS_BYTES, DeviceCaps, Dispatch, LayerFlags, Partition, Parts};
use crate::error::LimitError;
use crate::shaders::{CombineParams, Kernel, TileParams, Upstream, Variant};

/// Local statistics or local gradient sums of one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct SumsPlan {
    /// Sums of every tile, window by window. Where a channel has one tile, these are the rank's.
    pub partials: Vec<Dispatch<TileParams>>,
    /// Sums of the rank; `None` where a channel has one tile.
    pub combine: Option<Dispatch<CombineParams>>,
    /// Bytes of the scratch buffer in [`Role::Tiles`](super::Role::Tiles); 0 without `combine`.
    pub tiles_bytes: u64,
    /// Bytes of the result in [`Role::Local`](super::Role::Local).
    pub local_bytes: u64,
}

impl SumsPlan {
    /// Plans the local statistics of an activation; `None` where it has no value.
    ///
    /// # Errors
    /// [`LimitError`] when a tile, or what is kept per tile or channel, exceeds one binding, or a
    /// dispatch its workgroups.
    pub fn statistics(x: Activation<'_>, caps: &DeviceCaps) -> Result<Option<Self>, LimitError> {
        let grid = Grid::new(x, x.shape, caps);
        let partial = |subgroups| Kernel::PartialStats {
            x: caps.storage(x.dtype),
            elements: grid.elements(),
            subgroups,
        };
        Self::new([x, x], &grid, caps, partial, Kernel::CombineStats)
    }

    /// Plans the local gradient sums of an activation with its upstream gradient; `None` where it
    /// has no value.
    ///
    /// # Errors
    /// As [`statistics`](Self::statistics).
    pub fn gradient(
        x: Activation<'_>,
        g: Activation<'_>,
        caps: &DeviceCaps,
        layer: LayerFlags,
    ) -> Result<Option<Self>, LimitError> {
        let grid = Grid::new(x, g.shape, caps);
        let upstream = Upstream {
            x: caps.storage(x.dtype),
            grad_output: caps.storage(g.dtype),
            elements: grid.elements(),
            strided: grid.g_is_strided(),
            active: layer.active(),
        };
        let partial = |subgroups| Kernel::PartialGradSums { upstream, subgroups };
        let mut plan = Self::new([x, g], &grid, caps, partial, Kernel::CombineGradSums)?;
        let partials = plan.iter_mut().flat_map(|plan| &mut plan.partials);
        partials.for_each(|partial| layer.set(&mut partial.params));
        Ok(plan)
    }

    /// Plans the local sums of double backward of an activation, with grad_output and a cotangent
    /// that are stored and lie as it; `None` where it has no value.
    ///
    /// # Errors
    /// As [`statistics`](Self::statistics).
    pub fn double(
        x: Activation<'_>,
        caps: &DeviceCaps,
        layer: LayerFlags,
    ) -> Result<Option<Self>, LimitError> {
        let grid = Grid::new(x, x.shape, caps);
        let upstream = layer.upstream_like(x.dtype, &grid);
        let partial = |_| Kernel::PartialDoubleSums(upstream);
        let mut plan = Self::new([x, x], &grid, caps, partial, Kernel::CombineGradSums)?;
        let partials = plan.iter_mut().flat_map(|plan| &mut plan.partials);
        partials.for_each(|partial| layer.set(&mut partial.params));
        Ok(plan)
    }

    /// The same sums with x, or g of gradient sums, multiplied by a power of two.
    pub fn in_units(&self, unit: f32) -> Self {
        let mut plan = self.clone();
        plan.partials.iter_mut().for_each(|partial| partial.params.unit = unit);
        plan
    }

    /// `partial` is the kernel of the tiles, by whether it merges lanes within a subgroup.
    fn new(
        [x, g]: [Activation<'_>; 2],
        grid: &Grid,
        caps: &DeviceCaps,
        partial: impl Fn(bool) -> Kernel,
        combine: Kernel,
    ) -> Result<Option<Self>, LimitError> {
        let partition = Partition::new(grid, x.dtype.size_bytes());
        if x.shape.values_per_channel() == 0 {
            return Ok(None);
        }
        let dims = x.shape.dims();
        let channels = x.shape.channels();
        let local_bytes = channels as u64 * CHANNEL_SUMS_BYTES;
        caps.check_binding("sums per channel", dims, local_bytes)?;
        let is_tiled = partition.tiles > 1;
        let tiles_bytes = if is_tiled { partition.tiles.saturating_mul(local_bytes) } else { 0 };
        caps.check_binding("scratch for the tiles", dims, tiles_bytes)?;
        let subgroups = caps.subgroups && partition.has_fours() && !grid.four_channels;
        let variant = Variant::new(partial(subgroups));
        let (capacity, too_large) = caps.capacity(&[x, g], grid.unit);
        let windows =
            windows(&partition, grid, capacity, caps.most_workgroups()).ok_or(too_large)?;
        let partials = windows.iter().map(|window| {
            let parts = Parts::of(&window.span, grid.unit, [x, x, g]);
            let mut params = partition.tile_params(window, grid, channels);
            params.keeps_counts = (grid.is_padded && is_tiled).into();
            let workgroups = partition.tile_workgroups(window, dims, caps)?;
            Ok(Dispatch { variant, params, workgroups, parts })
        });
        let partials = partials.collect::<Result<Vec<_>, LimitError>>()?;
        let mut combine_plan = None;
        if is_tiled {
            let (params, workgroups) = partition.combine_dispatch(x.shape, grid, caps)?;
            let variant = Variant::new(combine);
            combine_plan = Some(Dispatch { variant, params, workgroups, parts: Parts::NONE });
        }
        Ok(Some(Self { partials, combine: combine_plan, tiles_bytes, local_bytes }))
    }
}
