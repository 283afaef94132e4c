//! How the values of a channel are cut into tiles, and tiles gathered into workgroups.

use super::{Activation, DeviceCaps};
use crate::error::LimitError;
use crate::shaders::{CombineParams, TileParams, VALUES_PER_ROW, WORKGROUP_SIZE};
use crate::shape::{Shape, Strides};

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
    /// Cuts an activation.
    pub fn new(x: Activation<'_>) -> Self {
        let (shape, element_bytes) = (x.shape, x.dtype.size_bytes());
        let values = shape.values_per_channel();
        let channels = shape.channels() as u64;
        let run = if shape.strides().inner == 1 { shape.spatial_len() as u64 } else { 1 };
        let columns = columns_for_runs(run.max(1) * element_bytes, channels);
        let wanted = values.div_ceil(u64::from(VALUES_PER_ROW)).max(1).next_power_of_two();
        let rows = wanted.min(u64::from(WORKGROUP_SIZE) / columns) as u32;
        let tiles = values.div_ceil(u64::from(rows * VALUES_PER_ROW));
        Self { values, rows, tiles, blocks: channels.div_ceil(u64::from(WORKGROUP_SIZE / rows)) }
    }

    /// Values of every tile but the last.
    pub fn tile_values(&self) -> u32 {
        self.rows * VALUES_PER_ROW
    }

    /// Parameters of a kernel that walks these tiles of `x`, and of `g` beside it. Flags are 0.
    ///
    /// Every quantity is at most the number of elements, which the checks of bindings keep within 32 bits; addresses
    /// beyond the last value are formed modulo 2³² and not used.
    pub(super) fn tile_params(&self, x: &Shape, g: &Shape) -> TileParams {
        let inner = x.spatial_len() as u32;
        let step_outer = self.rows.checked_div(inner).unwrap_or(0);
        let step_inner = self.rows.checked_rem(inner).unwrap_or(0);
        let walk = |strides: Strides| {
            let [sample, channel, stride] = [strides.sample, strides.channel, strides.inner].map(|n| n as u32);
            let step = step_outer.wrapping_mul(sample).wrapping_add(step_inner.wrapping_mul(stride));
            [sample, channel, stride, step, sample.wrapping_sub(inner.wrapping_mul(stride))]
        };
        let [x_sample, x_channel, x_inner, x_step, x_wrap] = walk(x.strides());
        let [g_sample, g_channel, g_inner, g_step, g_wrap] = walk(g.strides());
        TileParams {
            channels: x.channels() as u32,
            inner,
            values: self.values as u32,
            elements: x.elements() as u32,
            tiles: self.tiles as u32,
            rows: self.rows,
            columns_log2: (WORKGROUP_SIZE / self.rows).ilog2(),
            blocks: self.blocks as u32,
            step_inner,
            x_sample,
            x_channel,
            x_inner,
            x_step,
            x_wrap,
            g_sample,
            g_channel,
            g_inner,
            g_step,
            g_wrap,
            ..TileParams::default()
        }
    }

    /// Workgroups of a kernel that walks the tiles.
    pub(super) fn tile_workgroups(&self, shape: &Shape, caps: &DeviceCaps) -> Result<[u32; 2], LimitError> {
        caps.workgroups(self.tiles * self.blocks, shape.dims())
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
fn columns_for_runs(channel_run_bytes: u64, channels: u64) -> u64 {
    let wanted = RUN_BYTES.div_ceil(channel_run_bytes).next_power_of_two();
    wanted.min(channels.next_power_of_two()).min(u64::from(WORKGROUP_SIZE))
}
