//! How the values of a channel are cut into tiles, and tiles gathered into workgroups.

use super::DeviceCaps;
use crate::error::LimitError;
use crate::shaders::{CombineParams, TileParams, VALUES_PER_ROW, WORKGROUP_SIZE};
use crate::shape::Shape;

/// Bytes that neighbouring invocations should read next to each other: a cache line of most GPUs.
const RUN_BYTES: u64 = 128;
/// Tiles that one invocation of a combining kernel takes before more invocations join: enough to hide a barrier.
const TILES_PER_ROW: u64 = 8;

/// The cut of an activation into tiles.
///
/// A tile holds `rows`·16 values of one channel. A workgroup holds 256/rows tiles side by side, of neighbouring channels:
/// many where a channel has few values or where the values of one channel lie far apart (small L), one otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Values per channel, N·L.
    pub values: u64,
    /// Invocations per tile: a power of two, at most 256.
    pub rows: u32,
    /// Tiles per channel; 0 where there is no value.
    pub tiles: u64,
    /// Workgroups that cover all channels once.
    pub blocks: u64,
}

impl Partition {
    /// Cuts an activation of this shape, of elements of `element_bytes`.
    pub fn new(shape: &Shape, element_bytes: u64) -> Self {
        let values = shape.values_per_channel();
        let channels = shape.channels() as u64;
        let columns = columns_for_runs(shape.spatial_len() as u64 * element_bytes, element_bytes, channels);
        let wanted = values.div_ceil(u64::from(VALUES_PER_ROW)).max(1).next_power_of_two();
        let rows = wanted.min(u64::from(WORKGROUP_SIZE) / columns) as u32;
        let tiles = values.div_ceil(u64::from(rows * VALUES_PER_ROW));
        Self { values, rows, tiles, blocks: channels.div_ceil(u64::from(WORKGROUP_SIZE / rows)) }
    }

    /// Values of every tile but the last.
    pub fn tile_values(&self) -> u32 {
        self.rows * VALUES_PER_ROW
    }

    /// Parameters of a kernel that walks these tiles, and its workgroups.
    pub(super) fn tile_dispatch(&self, shape: &Shape, caps: &DeviceCaps) -> Result<(TileParams, [u32; 2]), LimitError> {
        let workgroups = caps.workgroups(self.tiles * self.blocks, shape.dims())?;
        // Every quantity below is at most the number of elements, which the check of the binding keeps within 32 bits;
        // the two address steps are used modulo 2³² by the shader.
        let (channels, inner) = (shape.channels() as u32, shape.spatial_len() as u32);
        let (step_outer, step_inner) =
            (self.rows.checked_div(inner).unwrap_or(0), self.rows.checked_rem(inner).unwrap_or(0));
        let sample = channels.wrapping_mul(inner);
        let params = TileParams {
            channels,
            inner,
            values: self.values as u32,
            tiles: self.tiles as u32,
            rows: self.rows,
            columns_log2: (WORKGROUP_SIZE / self.rows).ilog2(),
            blocks: self.blocks as u32,
            step_inner,
            step_address: step_outer.wrapping_mul(sample).wrapping_add(step_inner),
            wrap_address: sample.wrapping_sub(inner),
            has_weight: 0,
            has_bias: 0,
            has_batch_statistics: 0,
        };
        Ok((params, workgroups))
    }

    /// Parameters of a kernel that combines the tiles of every channel, and its workgroups.
    pub(super) fn combine_dispatch(
        &self,
        shape: &Shape,
        caps: &DeviceCaps,
    ) -> Result<(CombineParams, [u32; 2]), LimitError> {
        let rows = self.tiles.div_ceil(TILES_PER_ROW).max(1).next_power_of_two().min(u64::from(WORKGROUP_SIZE)) as u32;
        let columns = WORKGROUP_SIZE / rows;
        let blocks = (shape.channels() as u64).div_ceil(u64::from(columns));
        let params = CombineParams {
            channels: shape.channels() as u32,
            tiles: self.tiles as u32,
            tile_values: self.tile_values(),
            last_values: (self.values - self.tiles.saturating_sub(1) * u64::from(self.tile_values())) as u32,
            rows,
            columns_log2: columns.ilog2(),
            values: self.values as f32,
            padding: 0,
        };
        Ok((params, caps.workgroups(blocks, shape.dims())?))
    }
}

/// Channels side by side that together read runs of [`RUN_BYTES`], a power of two not above what the channels fill.
fn columns_for_runs(channel_run_bytes: u64, element_bytes: u64, channels: u64) -> u64 {
    let wanted = RUN_BYTES.div_ceil(channel_run_bytes.max(element_bytes)).next_power_of_two();
    wanted.min(channels.next_power_of_two()).min(u64::from(WORKGROUP_SIZE))
}
