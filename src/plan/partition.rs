//! How the values of a channel are cut into tiles, and tiles gathered into workgroups.
//!
//! The cut has two aims: the loads of a workgroup coalesce, and few channels of many values give a
//! device as much to do (occupancy) as many channels of few. An invocation goes through 16 values
//! of a tile.

use super::DeviceCaps;
use super::grid::Grid;
use super::mask::place_by_address;
use super::run::channel_run;
use super::window::Window;
use crate::error::LimitError;
use crate::shaders::{
    CombineParams, SUMMED_PER_LANE, TileParams, WORKGROUP_SIZE, WRITTEN_PER_LANE,
};
use crate::shape::{Shape, Strides};

/// Bytes of neighbouring channels that lie next to each other and that the loads of a workgroup
/// should coalesce: a cache line of most GPUs.
const RUN_BYTES: u64 = 128;
/// Tiles, each of another channel, that a workgroup holds at least where a channel has one unit in
/// a place. Every invocation's next value lies a whole sample or position away there, so fewer
/// channels scatter the memory of a workgroup more. More tiles would leave fewer than eight lanes
/// to each, and tiles so small that their sums take an eighth of the memory of the values.
const LEAST_TILES_PER_WORKGROUP: u64 = 32;
/// Bytes of one channel that neighbouring invocations read next to each other: half a cache line,
/// so that an invocation's next value is near to its last.
const STEP_BYTES: u64 = 64;
/// Units that they read at least: as many as the smallest groups of invocations have that common
/// devices run in step.
const LEAST_STEP: u64 = 8;
/// Tiles that one invocation of a combining kernel takes before more invocations join: enough to
/// hide a barrier.
const TILES_PER_LANE: u64 = 8;
/// Elements of memory that one tile may lie across: a quarter of the smallest binding that a device
/// may have, 128 MiB, as f32, because kernels that write take two tiles at a time. The same for
/// every device, so that none changes a bit.
const TILE_SPAN: u64 = 8 << 20;

/// The cut of an activation into tiles.
///
/// A lane is an invocation of a tile. A tile holds up to 16 values of one channel per lane, or 32
/// where kernels write. A workgroup holds 256/`lanes_per_tile` tiles of neighbouring channels: many
/// where a channel has few values or where its values lie far from each other (small L), one
/// otherwise. Tiles partition a segment: all values of a channel, or those of one sample where a
/// tile across two samples would not fit a binding. Tiles depend on the units alone, never on limits
/// of a device; who writes which value may depend on its subgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Values per channel, N·L.
    pub values: u64,
    /// Whether a segment is a sample's, as those of padded samples are.
    pub is_split: bool,
    /// Values per segment.
    pub segment_values: u64,
    /// Invocations per tile: a power of two, at most 256.
    pub lanes_per_tile: u32,
    /// Invocations of a tile that go side by side through a run of it, a power of two.
    pub lanes_per_run: u32,
    /// Values of a tile that one invocation goes through.
    pub values_per_lane: u32,
    /// Tiles per segment.
    pub segment_tiles: u64,
    /// Tiles per channel; 0 where there is no value.
    pub tiles: u64,
    /// Workgroups that cover all channels once.
    pub blocks: u64,
}

impl Partition {
    /// Cuts an activation for kernels that sum; everything is counted in units of the grid.
    pub(super) fn new(grid: &Grid, element_bytes: u64) -> Self {
        let shape = &grid.shape;
        let values = shape.values_per_channel();
        let channels = shape.channels() as u64;
        let channels_first = shape.strides().inner == 1;
        let inner = shape.spatial_len() as u64;
        let unit_bytes = grid.load() * element_bytes;
        let run = channel_run(shape).max(1);
        let tiles_per_workgroup = tiles_per_workgroup(run, unit_bytes, channels);
        let span = |lanes: u64| tile_span(shape, grid.load(), lanes);
        let is_split = grid.is_padded || (channels_first && span(1) > TILE_SPAN);
        let segment_values = if is_split { inner } else { values };
        let wanted = segment_values.div_ceil(u64::from(SUMMED_PER_LANE)).max(1).next_power_of_two();
        let mut lanes = wanted.min(u64::from(WORKGROUP_SIZE) / tiles_per_workgroup);
        // A tile of a sample's own does not go beyond it, channels first.
        while !(is_split && channels_first) && lanes > 1 && span(lanes) > TILE_SPAN {
            lanes /= 2;
        }
        let lanes = lanes as u32;
        let lanes_per_run =
            (STEP_BYTES / unit_bytes).max(LEAST_STEP).min(run).min(u64::from(lanes));
        let lanes_per_run = 1 << lanes_per_run.ilog2();
        let segment_tiles = segment_values.div_ceil(u64::from(lanes * SUMMED_PER_LANE));
        let segments = if is_split { shape.batch() as u64 } else { 1 };
        let blocks = channels.div_ceil(u64::from(WORKGROUP_SIZE / lanes));
        // As few as the tiles need, so that the last of them is about as full as the others.
        let values_per_lane =
            segment_values.div_ceil((segment_tiles * u64::from(lanes)).max(1)).max(1) as u32;
        let tiles = segments * segment_tiles;
        Self {
            values,
            is_split,
            segment_values,
            lanes_per_tile: lanes,
            lanes_per_run,
            values_per_lane,
            segment_tiles,
            tiles,
            blocks,
        }
    }

    /// The same cut with runs of more lanes, where that many find values next to each other: for
    /// kernels that write values one by one, whose bits do not depend on who writes what.
    pub(super) fn with_steps_of(self, lanes: u32, grid: &Grid) -> Self {
        let most = channel_run(&grid.shape).max(1).min(u64::from(self.lanes_per_tile.min(lanes)));
        Self { lanes_per_run: self.lanes_per_run.max(1 << most.ilog2()), ..self }
    }

    /// Whether four neighbouring lanes are four neighbouring invocations.
    pub(super) fn has_fours(&self) -> bool {
        let neighbours = if self.lanes_per_tile == WORKGROUP_SIZE {
            self.lanes_per_tile
        } else {
            self.lanes_per_run
        };
        neighbours >= 4
    }

    /// The same cut for kernels that write: two tiles of single values of a segment are one.
    pub(super) fn written(self, grid: &Grid) -> Self {
        if grid.is_quads() {
            return self;
        }
        let values_per_lane = self.values_per_lane * (WRITTEN_PER_LANE / SUMMED_PER_LANE);
        let segment_tiles =
            self.segment_values.div_ceil(u64::from(self.lanes_per_tile * values_per_lane));
        let segments = self.tiles.checked_div(self.segment_tiles).unwrap_or(0);
        Self { values_per_lane, segment_tiles, tiles: segments * segment_tiles, ..self }
    }

    /// Values of every tile but a segment's last.
    pub fn tile_values(&self) -> u32 {
        self.lanes_per_tile * self.values_per_lane
    }

    /// Values of a segment's last tile.
    fn last_values(&self) -> u32 {
        (self.segment_values - self.segment_tiles.saturating_sub(1) * u64::from(self.tile_values()))
            as u32
    }

    /// Parameters of a kernel that walks the tiles of a window of `channels` channels. Flags are 0.
    ///
    /// Addresses are formed modulo 2³²; those of values within the window are below the elements of
    /// a binding.
    pub(super) fn tile_params(&self, window: &Window, grid: &Grid, channels: usize) -> TileParams {
        let inner = window.inner;
        let step_outer = self.lanes_per_run / inner;
        let step_inner = self.lanes_per_run % inner;
        let walk = |strides: Strides| {
            let [sample, channel, stride] =
                [strides.sample, strides.channel, strides.inner].map(|n| n as u32);
            let step =
                step_outer.wrapping_mul(sample).wrapping_add(step_inner.wrapping_mul(stride));
            [sample, channel, stride, step, sample.wrapping_sub(inner.wrapping_mul(stride))]
        };
        let [x_sample, x_channel, x_inner, x_step, x_wrap] = walk(grid.x);
        let [g_sample, g_channel, g_inner, g_step, g_wrap] = walk(grid.g);
        let [mask_origin, mask_offset] =
            place_by_address(window.span.elements.start * grid.unit, grid.load());
        TileParams {
            channels: channels as u32,
            unit: 1.0,
            inner,
            run: grid.plane as u32,
            end_element: (window.span.elements.end - window.span.elements.start) as u32,
            tiles: (window.tiles.end - window.tiles.start) as u32,
            segment_tiles: window.segment_tiles,
            last_values: self.last_values(),
            start: window.start,
            first_tile: window.tiles.start as u32,
            first_channel: window.channels.start as u32,
            end_channel: window.channels.end as u32,
            lanes_per_tile: self.lanes_per_tile,
            values_per_lane: self.values_per_lane,
            lanes_per_run_log2: self.lanes_per_run.ilog2(),
            tiles_per_workgroup_log2: (WORKGROUP_SIZE / self.lanes_per_tile).ilog2(),
            blocks: self.blocks_of(window) as u32,
            step_inner,
            x_origin: window.span.origin,
            x_sample,
            x_channel,
            x_inner,
            x_step,
            x_wrap,
            g_origin: grid.g_origin(window.span.origin),
            g_sample,
            g_channel,
            g_inner,
            g_step,
            g_wrap,
            g_value_stride: grid.g_value_stride,
            mask_origin,
            mask_offset,
            mask_segment_tiles: self.segment_tiles as u32,
            mask_segment_words: self.written(grid).segment_tiles as u32,
            mask_blocks: self.blocks as u32,
            padded: grid.is_padded.into(),
            first_length: window.span.first_length(),
            first_position: window.first_position as u32,
            ..TileParams::default()
        }
    }

    /// Workgroups that cover the channels of a window once.
    fn blocks_of(&self, window: &Window) -> u64 {
        (window.channels.end - window.channels.start)
            .div_ceil(u64::from(WORKGROUP_SIZE / self.lanes_per_tile))
    }

    /// Workgroups of a kernel that walks the tiles of a window.
    pub(super) fn tile_workgroups(
        &self,
        window: &Window,
        dims: &[usize],
        caps: &DeviceCaps,
    ) -> Result<[u32; 2], LimitError> {
        caps.workgroups((window.tiles.end - window.tiles.start) * self.blocks_of(window), dims)
    }

    /// Parameters of a kernel that combines the tiles of every channel, and its workgroups.
    pub(super) fn combine_dispatch(
        &self,
        shape: &Shape,
        grid: &Grid,
        caps: &DeviceCaps,
    ) -> Result<(CombineParams, [u32; 2]), LimitError> {
        let lanes_per_channel = self
            .tiles
            .div_ceil(TILES_PER_LANE)
            .max(1)
            .next_power_of_two()
            .min(u64::from(WORKGROUP_SIZE)) as u32;
        let channels_per_workgroup = WORKGROUP_SIZE / lanes_per_channel;
        let blocks = (shape.channels() as u64).div_ceil(u64::from(channels_per_workgroup));
        let params = CombineParams {
            channels: shape.channels() as u32,
            tiles: self.tiles as u32,
            segment_tiles: self.segment_tiles as u32,
            tile_values: self.tile_values() * grid.values_per_unit(),
            last_values: self.last_values() * grid.values_per_unit(),
            lanes_per_channel,
            channels_per_workgroup_log2: channels_per_workgroup.ilog2(),
            values: shape.values_per_channel() as f32,
            first_tile: self.first_tile(shape),
            keeps_counts: grid.keeps_counts().into(),
            takes: 0,
        };
        Ok((params, caps.workgroups(blocks, shape.dims())?))
    }
}

impl Partition {
    /// The first tile that has a value.
    fn first_tile(&self, shape: &Shape) -> u32 {
        let first = shape
            .padding()
            .and_then(|padding| padding.positions().iter().position(|&positions| positions > 0));
        (first.unwrap_or(0) as u64 * self.segment_tiles) as u32
    }
}

/// Elements of memory from the first value of a tile of so many lanes to its last, of a shape in
/// units of so many elements. Channels first it ends within a sample, and begins within one.
fn tile_span(shape: &Shape, load: u64, lanes: u64) -> u64 {
    let ends = if shape.strides().inner == 1 { 2 * shape.spatial_len() as u64 } else { 0 };
    (shape.channels() as u64).saturating_mul(lanes * u64::from(SUMMED_PER_LANE) + ends) * load
}

/// Whether a tile of one lane would lie across more than one may, of a shape in quads.
pub(super) fn is_beyond_a_tile(quads: &Shape) -> bool {
    tile_span(quads, 4, 1) > TILE_SPAN
}

/// Channels side by side that together read runs of [`RUN_BYTES`] where a channel has `run` units
/// next to each other, and [`LEAST_TILES_PER_WORKGROUP`] at least where it has one: a power of two
/// not above what the channels fill.
fn tiles_per_workgroup(run: u64, unit_bytes: u64, channels: u64) -> u64 {
    let least = if run > 1 { 1 } else { LEAST_TILES_PER_WORKGROUP };
    let wanted = RUN_BYTES.div_ceil(run * unit_bytes).next_power_of_two().max(least);
    wanted.min(channels.next_power_of_two()).min(u64::from(WORKGROUP_SIZE))
}
