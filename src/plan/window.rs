//! Windows: the parts of large activations that one binding spans, cut at tile boundaries so that
//! no bit depends on them.

mod parts;

use std::ops::Range;

use super::grid::Grid;
use super::{MOST_SAMPLES, Partition, lengths_from};
use crate::shaders::WORKGROUP_SIZE;
use crate::shape::Shape;

/// Elements at whose multiples windows begin: their bytes are multiples of every alignment of an
/// offset, 256 bytes at most, in every storage type.
const GRAIN: u64 = 256;
/// Elements of the largest window: addresses within one are 32 bits wide, with room for one step
/// beyond.
const MOST_ELEMENTS: u64 = 1 << 30;

/// Some tiles of some channels, and the memory that they lie in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Tiles of every channel.
    pub tiles: Range<u64>,
    /// Channels.
    pub channels: Range<u64>,
    /// Where x lies, what is written in its layout, and grad_output, in units.
    pub span: Span,
    /// Position within its sample of the first tile's first value.
    pub start: u32,
    /// L as the walk through the window meets it: more than the window where it lies within one
    /// row.
    pub inner: u32,
    /// Units of the first tile's sample before it, where a window lies within one.
    pub first_position: u64,
    /// Tiles of the window after which a segment ends, the last of them shorter; `u32::MAX` where
    /// none ends.
    pub segment_tiles: u32,
}

/// A range of a tensor's elements that is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The elements; the first is a multiple of 256.
    pub elements: Range<u64>,
    /// The sample that the walk's samples count from.
    pub first_sample: u64,
    /// What is added, modulo 2³², to the address that channel, sample within the window and
    /// position give.
    pub origin: u32,
}

impl Span {
    /// From `first` to `end`, the walk's addresses counting from `zero`.
    pub(super) fn new(elements: Range<u64>, zero: u64) -> Self {
        let first = elements.start / GRAIN * GRAIN;
        let origin = zero.wrapping_sub(first) as u32;
        Self { elements: first..elements.end, first_sample: 0, origin }
    }

    /// The same of samples from this one on.
    pub(super) fn at_sample(self, first_sample: u64) -> Self {
        Self { first_sample, ..self }
    }

    /// The number of its first sample among the lengths that are bound.
    pub(super) fn first_length(&self) -> u32 {
        (self.first_sample - lengths_from(self.first_sample) / 4) as u32
    }
}

/// Units that a window of one binding may have, before it is widened to a multiple of 256; all of a
/// tensor that needs no widening.
pub(super) fn capacity(binding_bytes: u64, unit_bytes: u64, elements: u64) -> u64 {
    let fitting = (binding_bytes / unit_bytes).min(MOST_ELEMENTS);
    if elements <= fitting { fitting } else { fitting.saturating_sub(GRAIN) }
}

/// What the windows of one activation have in common.
struct Cut<'a> {
    partition: &'a Partition,
    shape: &'a Shape,
    capacity: u64,
    /// Tiles of every channel that one dispatch has workgroups for.
    most_tiles: u64,
    /// Samples that one dispatch has lengths for.
    most_samples: u64,
    same_layout: bool,
    /// Memory of a sample, in elements where quads cover planes, in units otherwise.
    sample: u64,
    /// Elements that are bound whole: of a quad that straddles two samples too.
    whole: u64,
}

/// The windows of a grid with grad_output beside x, in the order of their tiles; `None` where one
/// tile alone exceeds `capacity` elements. A window has at most `most_workgroups`, as far as one
/// tile of every channel leaves a choice.
pub(super) fn windows(
    partition: &Partition,
    grid: &Grid,
    capacity: u64,
    most_workgroups: u64,
) -> Option<Vec<Window>> {
    let most_tiles = (most_workgroups / partition.blocks).max(1);
    let x = &grid.shape;
    let most_samples = if grid.is_padded { MOST_SAMPLES } else { u64::MAX };
    let same_layout = grid.same_layout;
    let sample = grid.x.sample as u64;
    let whole = if grid.covers() { grid.load() } else { 1 };
    let cut = Cut {
        partition,
        shape: x,
        // The end of a window may be moved on to the end of a quad.
        capacity: capacity.saturating_sub(whole - 1),
        most_tiles,
        most_samples,
        same_layout,
        sample,
        whole,
    };
    let fits = x.batch() as u64 * sample <= capacity && x.batch() as u64 <= most_samples;
    if fits && partition.tiles <= most_tiles {
        return Some(vec![cut.samples(0..partition.tiles, 0..x.batch() as u64)]);
    }
    if partition.is_split {
        return cut.windows_of_segments();
    }
    let mut windows = Vec::new();
    let mut tile = 0;
    while tile < partition.tiles {
        let window = if x.strides().inner > 1 && cut.same_layout {
            cut.run(tile)?
        } else {
            cut.whole_samples(tile)?
        };
        tile = window.tiles.end;
        windows.push(window);
    }
    Some(windows)
}

impl Cut<'_> {
    fn tile_values(&self) -> u64 {
        u64::from(self.partition.tile_values())
    }

    /// L.
    fn inner(&self) -> u64 {
        self.shape.spatial_len() as u64
    }

    /// C·L.
    fn sample(&self) -> u64 {
        self.sample
    }

    fn channels(&self) -> Range<u64> {
        0..self.shape.channels() as u64
    }

    /// The number of tiles if the last of them ends a segment.
    fn segment_tiles(&self, tiles: &Range<u64>) -> u32 {
        let ends = tiles.end.is_multiple_of(self.partition.segment_tiles);
        if ends { (tiles.end - tiles.start) as u32 } else { u32::MAX }
    }

    /// Tiles that lie in these samples, all of whose memory is bound.
    fn samples(&self, tiles: Range<u64>, samples: Range<u64>) -> Window {
        let span = Span::new(
            samples.start * self.sample()
                ..(samples.end * self.sample()).next_multiple_of(self.whole),
            samples.start * self.sample(),
        )
        .at_sample(samples.start);
        let is_split = self.partition.is_split;
        let first_value = if is_split { 0 } else { tiles.start * self.tile_values() };
        Window {
            segment_tiles: if is_split {
                self.partition.segment_tiles as u32
            } else {
                self.segment_tiles(&tiles)
            },
            tiles,
            channels: self.channels(),
            span,
            first_position: 0,
            start: (first_value % self.inner().max(1)) as u32,
            inner: self.inner().max(1) as u32,
        }
    }

    /// As many tiles from `tile` on as whole samples fit, where tiles go on from one sample to the
    /// next.
    fn whole_samples(&self, tile: u64) -> Option<Window> {
        let values = self.partition.values;
        let inner = self.inner();
        let first = tile * self.tile_values() / inner;
        let fitting = (first + self.capacity / self.sample()) * inner;
        let end =
            if fitting >= values { self.partition.tiles } else { fitting / self.tile_values() };
        let end = end.min(tile + self.most_tiles);
        let last_value = values.min(end * self.tile_values());
        (end > tile).then(|| self.samples(tile..end, first..last_value.div_ceil(inner)))
    }

    /// As many tiles from `tile` on as fit, where all channels of successive values lie next to
    /// each other.
    fn run(&self, tile: u64) -> Option<Window> {
        let channels = self.channels().end;
        let fitting = (self.capacity / (self.tile_values() * channels)).min(self.most_tiles);
        let tiles = tile..self.partition.tiles.min(tile + fitting);
        let first_value = tile * self.tile_values();
        let last_value = self.partition.values.min(tiles.end * self.tile_values());
        let zero = first_value / self.inner() * self.sample();
        let span = Span::new(first_value * channels..last_value * channels, zero);
        (fitting > 0).then(|| Window {
            segment_tiles: self.segment_tiles(&tiles),
            tiles,
            channels: 0..channels,
            span,
            first_position: 0,
            start: (first_value % self.inner()) as u32,
            inner: self.inner() as u32,
        })
    }

    /// Windows where every sample has tiles of its own: of whole samples, of some channels of a
    /// sample, or of a part of one channel of a sample.
    fn windows_of_segments(&self) -> Option<Vec<Window>> {
        let samples = self.shape.batch() as u64;
        let inner = self.inner();
        let per_segment = self.partition.segment_tiles;
        let fitting = (self.capacity / self.sample()).min(self.most_tiles / per_segment);
        if let per @ 1.. = fitting.min(self.most_samples) {
            let starts = (0..samples).step_by(per as usize);
            let ranges = starts.map(|first| first..samples.min(first + per));
            return Some(
                ranges
                    .map(|s| self.samples(s.start * per_segment..s.end * per_segment, s))
                    .collect(),
            );
        }
        if self.shape.strides().inner > 1 {
            return self.windows_of_rows();
        }
        // The samples of another layout are not cut along with those of x.
        // Whole workgroups of channels, because a mask counts those.
        let tiles_per_workgroup = u64::from(WORKGROUP_SIZE / self.partition.lanes_per_tile);
        let fitting = self.capacity / inner / tiles_per_workgroup * tiles_per_workgroup;
        let tiles = self.capacity / self.tile_values();
        if !self.same_layout || (fitting == 0 && (tiles == 0 || tiles_per_workgroup > 1)) {
            return None;
        }
        let mut windows = Vec::new();
        for sample in 0..samples {
            for channel in self.channels().step_by(fitting.max(1) as usize) {
                let channels = channel..self.channels().end.min(channel + fitting.max(1));
                let all = sample * per_segment..(sample + 1) * per_segment;
                let step = if fitting > 0 { per_segment.min(self.most_tiles) } else { tiles };
                for tile in all.clone().step_by(step as usize) {
                    let tiles = tile..all.end.min(tile + step);
                    windows.push(self.part_of_sample(sample, channels.clone(), tiles));
                }
            }
        }
        Some(windows)
    }
}

#[cfg(test)]
mod tests;
