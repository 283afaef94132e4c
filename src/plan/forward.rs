//! The plans of the two halves of forward: local statistics, and what is done with the global ones.

use super::{CHANNEL_SUMS_BYTES, DeviceCaps, Dispatch, Partition, Role};
use crate::error::LimitError;
use crate::shaders::{CombineParams, Kernel, TileParams};
use crate::shape::Shape;

/// Bytes of an f32.
const F32_BYTES: u64 = 4;

/// Local statistics of one rank: tiles, then their combination.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsPlan {
    /// Statistics of every tile. Where a channel has one tile, these are the rank's.
    pub partial: Dispatch<TileParams>,
    /// Statistics of the rank; `None` where a channel has one tile.
    pub combine: Option<Dispatch<CombineParams>>,
    /// Bytes of the scratch buffer in [`Role::Tiles`]; 0 without `combine`.
    pub tiles_bytes: u64,
    /// Bytes of the result in [`Role::Local`].
    pub local_bytes: u64,
}

impl StatsPlan {
    /// Plans the statistics of an f32 activation; `None` where it has no value.
    ///
    /// # Errors
    /// [`LimitError`] when a buffer exceeds one binding or a dispatch its workgroups.
    pub fn new(shape: &Shape, caps: &DeviceCaps) -> Result<Option<Self>, LimitError> {
        caps.check_binding("x", shape.dims(), shape.elements().saturating_mul(F32_BYTES))?;
        let partition = Partition::new(shape, F32_BYTES);
        if partition.tiles == 0 {
            return Ok(None);
        }
        let single = partition.tiles == 1;
        let channel_bytes = shape.channels() as u64 * CHANNEL_SUMS_BYTES;
        let tiles_bytes = if single { 0 } else { partition.tiles * channel_bytes };
        caps.check_binding("scratch for the tiles", shape.dims(), tiles_bytes)?;
        let (params, workgroups) = partition.tile_dispatch(shape, caps)?;
        let roles: &[Role] = if single { &[Role::Input, Role::Local] } else { &[Role::Input, Role::Tiles] };
        let combine = if single {
            None
        } else {
            let (params, workgroups) = partition.combine_dispatch(shape, caps)?;
            Some(Dispatch { kernel: Kernel::CombineStats, params, workgroups, roles: &[Role::Tiles, Role::Local] })
        };
        let partial = Dispatch { kernel: Kernel::PartialStats, params, workgroups, roles };
        Ok(Some(Self { partial, combine, tiles_bytes, local_bytes: channel_bytes }))
    }
}

/// Normalization of one rank with statistics that are known.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyPlan {
    /// The one dispatch.
    pub normalize: Dispatch<TileParams>,
}

impl ApplyPlan {
    /// Plans the normalization of an f32 activation; `None` where it has no value.
    ///
    /// # Errors
    /// [`LimitError`] when a buffer exceeds one binding or a dispatch its workgroups.
    pub fn new(shape: &Shape, caps: &DeviceCaps, weight: bool, bias: bool) -> Result<Option<Self>, LimitError> {
        caps.check_binding("x", shape.dims(), shape.elements().saturating_mul(F32_BYTES))?;
        let partition = Partition::new(shape, F32_BYTES);
        if partition.tiles == 0 {
            return Ok(None);
        }
        let (params, workgroups) = partition.tile_dispatch(shape, caps)?;
        let params = TileParams { has_weight: weight.into(), has_bias: bias.into(), ..params };
        let roles = &[Role::Input, Role::Centering, Role::Weight, Role::Bias, Role::Output];
        Ok(Some(Self { normalize: Dispatch { kernel: Kernel::Normalize, params, workgroups, roles } }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(dims: &[usize]) -> StatsPlan {
        let shape = Shape::new(dims).expect("a valid shape");
        StatsPlan::new(&shape, &DeviceCaps::PORTABLE).expect("within the limits").expect("not empty")
    }

    #[test]
    fn a_channel_of_one_tile_needs_no_combination_and_no_scratch() {
        let plan = stats(&[4, 8, 32, 32]);
        assert_eq!((plan.combine.is_none(), plan.tiles_bytes, plan.local_bytes), (true, 0, 128));
        assert_eq!(plan.partial.roles, [Role::Input, Role::Local]);
    }

    #[test]
    fn tiles_cover_every_value_exactly_once() {
        for dims in [[2, 3, 50_000], [7, 70_001, 1], [4096, 3, 1], [1, 1, 1], [33, 5, 7], [1, 2, 4097]] {
            let shape = Shape::new(&dims).expect("a valid shape");
            let partition = Partition::new(&shape, F32_BYTES);
            let values = u64::from(partition.tile_values());
            assert!(partition.tiles * values >= partition.values, "{dims:?}: {partition:?}");
            assert!((partition.tiles - 1) * values < partition.values, "{dims:?}: {partition:?}");
            assert!(partition.blocks * u64::from(256 / partition.rows) >= shape.channels() as u64, "{dims:?}");
        }
    }

    #[test]
    fn more_workgroups_than_one_dimension_holds_go_to_the_second() {
        let plan = stats(&[1, 70_001, 300]);
        let [x, y] = plan.partial.workgroups;
        assert!(x <= 65_535 && u64::from(x) * u64::from(y) >= 70_001u64.div_ceil(8));
        let caps = DeviceCaps { max_workgroups: 10, ..DeviceCaps::PORTABLE };
        assert_eq!(caps.workgroups(95, &[]), Ok([10, 10]));
        assert_eq!(caps.workgroups(101, &[1]), Err(LimitError::Workgroups { dims: vec![1], found: 101, allowed: 100 }));
    }

    #[test]
    fn what_one_binding_cannot_span_is_refused_with_both_numbers() {
        let shape = Shape::new(&[1, 1, (128 << 18) + 1]).expect("a valid shape");
        let refused = StatsPlan::new(&shape, &DeviceCaps::PORTABLE);
        let numbers = matches!(refused, Err(LimitError::Binding { found_bytes, allowed_bytes, .. })
            if found_bytes == (128 << 20) + 4 && allowed_bytes == 128 << 20);
        assert!(numbers, "{refused:?}");
    }

    #[test]
    fn an_empty_batch_plans_nothing() {
        let shape = Shape::new(&[0, 3, 5]).expect("a valid shape");
        assert_eq!(StatsPlan::new(&shape, &DeviceCaps::PORTABLE), Ok(None));
        assert_eq!(ApplyPlan::new(&shape, &DeviceCaps::PORTABLE, true, true), Ok(None));
    }
}
