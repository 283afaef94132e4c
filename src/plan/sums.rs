//! The first half of a pass: sums over one rank, of its tiles and then of their combination.

use super::grid::Grid;
use super::window::windows;
use super::{
    Activation, CHANNEL_INTEGERS_BYTES, CHANNEL_SUMS_BYTES, DeviceCaps, Dispatch, LayerFlags,
    Partition, Parts,
};
use crate::error::LimitError;
use crate::shaders::{CombineParams, Kernel, Storage, TileParams, Upstream, Variant};

/// What kernels that sum integers take of the values. `shaders/parts/takes.wgsl` has the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Both ends, or the largest magnitude of gradients.
    Range = 0,
    /// Σq and Σq² of x; Σq, Σw and Σq·w of gradients.
    Integers = 1,
    /// Σq, Σr and Σq·r of what rounding took from x.
    Rests = 2,
    /// Σr and Σr² of it.
    SquaresOfRests = 3,
}

/// Local statistics or local gradient sums of one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct SumsPlan {
    /// Sums of every tile, window by window. Where a channel has one tile, these are the rank's,
    /// but for sums of integers, whose tiles have another form.
    pub partials: Vec<Dispatch<TileParams>>,
    /// Sums of the rank; `None` where those of the tiles are the rank's, or where the kernel that
    /// merges ranks takes the tiles itself: then it was taken out of the plan.
    pub combine: Option<Dispatch<CombineParams>>,
    /// Bytes of the scratch buffer in [`Role::Tiles`](super::Role::Tiles); 0 where the sums of
    /// the tiles are the rank's.
    pub tiles_bytes: u64,
    /// Bytes of the result in [`Role::Local`](super::Role::Local).
    pub local_bytes: u64,
    /// Whether what sums may also do what would merge ranks, where there is one: each channel has
    /// one tile, and a dispatch costs more.
    pub(super) may_finish: bool,
}

/// Workgroups up to which what merges ranks costs less in each of them than in a dispatch of its
/// own, on a device that takes its few invocations together with all others of the workgroup. A
/// software driver does: 4 µs beside 50.
const FEW_WORKGROUPS: u64 = 16;
/// Neighbouring invocations in step from which on a device does not: what no invocation of so many
/// takes part in is skipped.
const SKIPS_IN_STEP: u32 = 16;

/// How the sums of tiles become those of a rank.
struct Combine {
    kernel: Kernel,
    /// Bytes per channel of a tile's sums.
    tile_bytes: u64,
    /// Bytes per channel of a rank's sums.
    channel_bytes: u64,
    /// Whether a single tile has another form than a rank, too.
    always: bool,
}

impl Combine {
    const STATISTICS: Self = Self::sums(Kernel::CombineStats);
    const GRADIENTS: Self = Self::sums(Kernel::CombineGradSums);
    const INTEGERS: Self = Self {
        kernel: Kernel::CombineIntegers,
        tile_bytes: 48,
        channel_bytes: CHANNEL_INTEGERS_BYTES,
        always: true,
    };

    const fn sums(kernel: Kernel) -> Self {
        let [tile_bytes, channel_bytes] = [CHANNEL_SUMS_BYTES; 2];
        Self { kernel, tile_bytes, channel_bytes, always: false }
    }
}

impl SumsPlan {
    /// Plans the local statistics of an activation; `None` where it has no value.
    ///
    /// # Errors
    /// [`LimitError`] when a tile, or what is kept per tile or channel, exceeds one binding, or a
    /// dispatch its workgroups.
    pub fn statistics(x: Activation<'_>, caps: &DeviceCaps) -> Result<Option<Self>, LimitError> {
        let grid = Grid::of_sums(x, x.shape, None, caps);
        let partial = |subgroups| Kernel::PartialStats {
            x: caps.storage(x.dtype),
            elements: grid.elements(),
            subgroups,
            finishes: None,
        };
        Self::new([x, x], &grid, caps, partial, &Combine::STATISTICS)
    }

    /// Plans ranges and sums of integers of an activation; `None` where it has no value.
    ///
    /// # Errors
    /// As [`statistics`](Self::statistics).
    pub fn integers(x: Activation<'_>, caps: &DeviceCaps) -> Result<Option<Self>, LimitError> {
        let grid = Grid::new(x, x.shape, caps);
        let elements = grid.elements();
        let partial = |_| Kernel::PartialIntegers(caps.storage(x.dtype), elements);
        Self::new([x, x], &grid, caps, partial, &Combine::INTEGERS)
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
        let grid = Grid::of_sums(x, g.shape, layer.mask, caps);
        let upstream = Upstream {
            x: caps.storage(x.dtype),
            grad_output: caps.storage(g.dtype),
            elements: grid.elements(),
            strided: grid.g_is_strided(),
            active: layer.active(),
        };
        let partial = |subgroups| Kernel::PartialGradSums { upstream, subgroups, finishes: None };
        let plan = Self::new([x, g], &grid, caps, partial, &Combine::GRADIENTS)?;
        Ok(plan.map(|plan| plan.of_layer(layer)))
    }

    /// Plans ranges and sums of integers of the gradients of an activation, f16 of which are read
    /// by integer arithmetic; `None` where it has no value.
    ///
    /// # Errors
    /// As [`statistics`](Self::statistics).
    pub fn gradient_integers(
        x: Activation<'_>,
        g: Activation<'_>,
        caps: &DeviceCaps,
        layer: LayerFlags,
    ) -> Result<Option<Self>, LimitError> {
        let grid = Grid::new(x, g.shape, caps);
        let upstream = Upstream {
            grad_output: Storage::packed(g.dtype),
            strided: grid.g_is_strided(),
            ..layer.upstream_like(x.dtype, &grid)
        };
        let partial = |_| Kernel::PartialGradIntegers(upstream);
        let plan = Self::new([x, g], &grid, caps, partial, &Combine::INTEGERS)?;
        Ok(plan.map(|plan| plan.of_layer(layer)))
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
        let plan = Self::new([x, x], &grid, caps, partial, &Combine::GRADIENTS)?;
        Ok(plan.map(|plan| plan.of_layer(layer)))
    }

    /// The same with what is asked of the layer once per invocation.
    fn of_layer(mut self, layer: LayerFlags) -> Self {
        self.partials.iter_mut().for_each(|partial| layer.set(&mut partial.params));
        self
    }

    /// The plan of integers for what is to be taken.
    pub fn taking(&self, taken: Taken) -> Self {
        let mut plan = self.clone();
        plan.partials.iter_mut().for_each(|partial| partial.params.takes = taken as u32);
        plan.combine.iter_mut().for_each(|combine| combine.params.takes = taken as u32);
        plan
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
        combine: &Combine,
    ) -> Result<Option<Self>, LimitError> {
        let partition = Partition::new(grid, x.dtype.size_bytes());
        if x.shape.values_per_channel() == 0 {
            return Ok(None);
        }
        let dims = x.shape.dims();
        let channels = x.shape.channels();
        let local_bytes = channels as u64 * combine.channel_bytes;
        caps.check_binding("sums per channel", dims, local_bytes)?;
        let is_tiled = combine.always || partition.tiles > 1;
        let tile_bytes = channels as u64 * combine.tile_bytes;
        let tiles_bytes = if is_tiled { partition.tiles.saturating_mul(tile_bytes) } else { 0 };
        caps.check_binding("scratch for the tiles", dims, tiles_bytes)?;
        let subgroups = caps.subgroups && partition.has_fours() && !grid.four_channels;
        let variant = Variant::new(partial(subgroups));
        let (capacity, too_large) = caps.capacity(&[x, g], grid.unit);
        let windows =
            windows(&partition, grid, capacity, caps.most_workgroups()).ok_or(too_large)?;
        let partials = windows.iter().map(|window| {
            let parts = Parts::of(&window.span, grid.unit, [x, x, g]);
            let mut params = partition.tile_params(window, grid, channels);
            params.keeps_counts = (grid.keeps_counts() && is_tiled).into();
            let workgroups = partition.tile_workgroups(window, dims, caps)?;
            Ok(Dispatch { variant, params, workgroups, parts })
        });
        let partials = partials.collect::<Result<Vec<_>, LimitError>>()?;
        let are_few = || {
            let count =
                |partial: &Dispatch<_>| partial.workgroups.map(u64::from).iter().product::<u64>();
            partials.iter().map(count).sum::<u64>() <= FEW_WORKGROUPS
        };
        let may_finish = !is_tiled && (caps.step_lanes >= SKIPS_IN_STEP || are_few());
        let mut combine_plan = None;
        if is_tiled {
            let (params, workgroups) = partition.combine_dispatch(x.shape, grid, caps)?;
            let variant = Variant::new(combine.kernel);
            combine_plan = Some(Dispatch { variant, params, workgroups, parts: Parts::NONE });
        }
        Ok(Some(Self { partials, combine: combine_plan, tiles_bytes, local_bytes, may_finish }))
    }
}
