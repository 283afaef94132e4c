//! Windows: every tile of every channel is in one, with all its memory, whatever a binding holds.

use super::*;
use crate::error::LimitError;
use crate::plan::tests::{f32s, walked};
use crate::plan::{DeviceCaps, SumsPlan};
use crate::shaders::TileParams;
use crate::shape::Layout::{self, ChannelsFirst, ChannelsLast};

/// How an activation is walked.
#[derive(Clone, Copy)]
struct Walk {
    quads: bool,
    /// Whether the tiles are those of kernels that write.
    written: bool,
}

/// The windows of one activation, and what they are checked against.
struct Checked {
    grid: Grid,
    partition: Partition,
    /// Channels, in elements.
    channels: usize,
    binding_bytes: u64,
    what: String,
}

/// Cuts an activation of one shape, (N, C, spatial…), and checks its windows for every walk. Gives
/// the most windows that a walk has.
fn windows_of(dims: &[usize], layout: Layout, binding_bytes: u64) -> usize {
    windows_with(dims, layout, binding_bytes, false)
}

/// The same, of padded samples where it is said.
fn windows_with(dims: &[usize], layout: Layout, binding_bytes: u64, is_padded: bool) -> usize {
    let mut dims = dims.to_vec();
    if layout == ChannelsLast {
        dims[1..].rotate_left(1);
    }
    let shape = Shape::new(&dims, layout).expect("a valid shape");
    let lengths = vec![0; if is_padded { shape.batch() } else { 0 }];
    let shape = if is_padded { shape.with_lengths(&lengths) } else { shape };
    let walks = [(false, false), (false, true), (true, false)];
    let count = |(quads, written)| {
        let checked = Checked::new(&shape, Walk { quads, written }, binding_bytes);
        checked.check()
    };
    walks.map(count).into_iter().max().unwrap_or(0)
}

impl Checked {
    fn new(shape: &Shape, walk: Walk, binding_bytes: u64) -> Self {
        let caps = DeviceCaps { quads: walk.quads, ..DeviceCaps::PORTABLE };
        let grid = Grid::new(f32s(shape), shape, &caps);
        let partition = Partition::new(&grid, 4);
        let partition = if walk.written { partition.written(&grid) } else { partition };
        let what = format!("{:?} {:?} {partition:?}", shape.dims(), shape.strides());
        Self { grid, partition, channels: shape.channels(), binding_bytes, what }
    }

    /// Checks that every tile of every channel is in one window, in order. Gives their number.
    fn check(&self) -> usize {
        let elements = self.grid.shape.elements();
        let capacity = capacity(self.binding_bytes, 4 * self.grid.unit, elements);
        let windows = windows(&self.partition, &self.grid, capacity, 65_535 * 65_535)
            .unwrap_or_else(|| panic!("{} {capacity}: no tile fits", self.what));
        let mut covered = 0;
        for window in &windows {
            let tiles = window.tiles.end - window.tiles.start;
            let channels = window.channels.end - window.channels.start;
            covered += u128::from(tiles) * u128::from(channels);
            self.check_window(window);
        }
        let all_channels = self.grid.shape.channels() as u128;
        assert_eq!(covered, u128::from(self.partition.tiles) * all_channels, "{}", self.what);
        // In the order of tiles, none of a channel twice.
        assert!(windows.windows(2).all(|pair| pair[0].tiles.end <= pair[1].tiles.start
            || pair[0].channels.end <= pair[1].channels.start));
        windows.len()
    }

    /// Checks that one binding holds the window, and the first, a middle and the last tile in it.
    fn check_window(&self, window: &Window) {
        let span = &window.span.elements;
        let bytes = (span.end - span.start) * 4 * self.grid.unit;
        assert!(span.start.is_multiple_of(256), "{} {window:?}", self.what);
        assert!(bytes <= self.binding_bytes, "{} {window:?}", self.what);
        assert!(span.end <= self.grid.shape.elements(), "{} {window:?}", self.what);
        let params = self.partition.tile_params(window, &self.grid, self.channels);
        let middle = (window.tiles.start + window.tiles.end) / 2;
        for tile in [window.tiles.start, middle, window.tiles.end - 1] {
            self.check_tile(window, &params, tile);
        }
    }

    /// Checks how many values a tile has, and that the walk finds the first, a middle and the last
    /// of them in the window.
    fn check_tile(&self, window: &Window, params: &TileParams, tile: u64) {
        let partition = &self.partition;
        let tile_values = u64::from(partition.tile_values());
        let segment = tile / partition.segment_tiles;
        let in_segment = tile % partition.segment_tiles;
        let first = segment * partition.segment_values + in_segment * tile_values;
        let count = tile_values.min((segment + 1) * partition.segment_values - first);
        let local = (tile - window.tiles.start) as u32;
        let is_last = local % params.segment_tiles + 1 == params.segment_tiles;
        let found = if is_last { params.last_values } else { partition.tile_values() };
        assert_eq!(u64::from(found), count, "{} {window:?}", self.what);
        if self.grid.is_padded {
            // As the kernel finds the sample's length, and what comes before the tile.
            let local_segment = u64::from(local / params.segment_tiles);
            let bound_from = crate::plan::lengths_from(window.span.first_sample) / 4;
            let number = u64::from(params.first_length) + local_segment;
            assert_eq!(bound_from + number, segment, "{} {window:?}", self.what);
            assert!(number < crate::shaders::LENGTHS, "{} {window:?}", self.what);
            let before = u64::from(params.first_position)
                + u64::from(local % params.segment_tiles) * tile_values;
            assert_eq!(before, in_segment * tile_values, "{} {window:?}", self.what);
        }
        let first_channel = window.channels.start;
        let last_channel = window.channels.end - 1;
        let values = [(0, first_channel), (count - 1, last_channel), (count / 2, first_channel)];
        for (at, channel) in values {
            let address = self.address(first + at, channel);
            let span = &window.span.elements;
            assert!(span.contains(&address), "{} {window:?}: {address}", self.what);
            let values_per_lane = partition.values_per_lane;
            let walked = walked(params, values_per_lane, local, channel as u32, at as u32);
            assert_eq!(u64::from(walked), address - span.start, "{} {window:?}", self.what);
        }
    }

    /// Where a value of a channel lies, in units.
    fn address(&self, value: u64, channel: u64) -> u64 {
        let strides = self.grid.shape.strides();
        let inner = self.grid.shape.spatial_len() as u64;
        value / inner * strides.sample as u64
            + channel * strides.channel as u64
            + value % inner * strides.inner as u64
    }
}

#[test]
fn windows_hold_every_tile_once_with_all_its_memory_up_to_two_to_the_forty_elements() {
    const PORTABLE: u64 = 128 << 20;
    let one: &[&[usize]] = &[&[2, 3, 50_000], &[1, 1, 1], &[7, 70_001, 1], &[32, 64, 112, 112]];
    for dims in one {
        for layout in [ChannelsFirst, ChannelsLast] {
            assert_eq!(windows_of(dims, layout, PORTABLE), 1, "{dims:?}");
        }
    }
    let many: &[&[usize]] = &[
        &[64, 256, 80, 80],
        &[1, 3, 1 << 25],
        &[3, 5, 10_000_019],
        &[1, 1, 536_870_911],
        &[2, 70_000, 1_001],
        &[1_000, 70_000, 3],
        &[8_191, 70_000, 1],
        &[1 << 20, 1 << 10, 1 << 10],
        &[1, 1 << 10, 1 << 30],
        &[1, 1, 1 << 40],
        &[1 << 30, 3, 341],
    ];
    for dims in many {
        for layout in [ChannelsFirst, ChannelsLast] {
            assert!(windows_of(dims, layout, PORTABLE) > 1, "{dims:?}");
        }
    }
}

#[test]
fn windows_of_padded_samples_have_the_lengths_of_all_their_samples() {
    for layout in [ChannelsFirst, ChannelsLast] {
        let windows = |dims: &[usize], bytes| windows_with(dims, layout, bytes, true);
        assert_eq!(windows(&[32, 64, 4096], 128 << 20), 1);
        assert_eq!(windows(&[4032, 8, 16], 128 << 20), 1);
        assert_eq!(windows(&[4033, 8, 16], 128 << 20), 2);
        assert_eq!(windows(&[10_000, 4, 8], 128 << 20), 3);
        // Whole samples, and parts of one.
        assert!(windows(&[40, 8, 12_345], 1 << 20) > 10);
        assert!(windows(&[3, 8, 1 << 20], 4 << 20) > 10);
        assert!(windows(&[64, 256, 80 * 80], 128 << 20) > 1);
    }
}

#[test]
fn a_smaller_binding_cuts_more_windows_and_leaves_the_tiles_alone() {
    let shape = Shape::new(&[40, 7, 12_345], ChannelsFirst).expect("a valid shape");
    let plan = |max_binding_bytes| {
        let caps = DeviceCaps { max_binding_bytes, ..DeviceCaps::PORTABLE };
        SumsPlan::statistics(f32s(&shape), &caps).expect("within the limits").expect("not empty")
    };
    let whole = plan(128 << 20);
    let cut = plan(1 << 20);
    assert_eq!((whole.partials.len(), whole.combine.clone()), (1, cut.combine.clone()));
    assert!(cut.partials.len() > 10);
    let tiles =
        |plan: &SumsPlan| plan.partials.iter().map(|partial| partial.params.tiles).sum::<u32>();
    assert_eq!(tiles(&whole), tiles(&cut));
}

#[test]
fn a_tile_that_one_binding_cannot_span_is_refused_with_both_numbers() {
    let shape = Shape::new(&[1, 1, 1 << 20], ChannelsFirst).expect("a valid shape");
    let caps = DeviceCaps { max_binding_bytes: 16_000, ..DeviceCaps::PORTABLE };
    let refused = SumsPlan::statistics(f32s(&shape), &caps);
    let has_both = matches!(refused, Err(LimitError::Binding { found_bytes, allowed_bytes, .. })
        if found_bytes == 4 << 20 && allowed_bytes == 16_000);
    assert!(has_both, "{refused:?}");
}
