//! Windows of a part of one sample, where each sample has tiles of its own.

use std::ops::Range;

use super::{Cut, Span, Window};

impl Cut<'_> {
    /// Windows of some tiles of one sample, where all channels of successive values lie next to
    /// each other.
    pub(super) fn windows_of_rows(&self) -> Option<Vec<Window>> {
        let channels = self.channels().end;
        let per_segment = self.partition.segment_tiles;
        let tiles = (self.capacity / (self.tile_values() * channels)).min(self.most_tiles);
        if tiles == 0 || !self.same_layout {
            return None;
        }
        let mut windows = Vec::new();
        for sample in 0..self.shape.batch() as u64 {
            let all = sample * per_segment..(sample + 1) * per_segment;
            for tile in all.clone().step_by(tiles as usize) {
                let tiles = tile..all.end.min(tile + tiles);
                let first_position = (tile - all.start) * self.tile_values();
                let end = self.inner().min((tiles.end - all.start) * self.tile_values());
                let at = |position| sample * self.sample() + position * channels;
                let span = Span::new(at(first_position)..at(end), at(first_position));
                windows.push(Window {
                    segment_tiles: self.segment_tiles(&tiles),
                    tiles,
                    channels: 0..channels,
                    span: span.at_sample(sample),
                    first_position,
                    start: 0,
                    // No walk through less than a sample comes to its end.
                    inner: u32::try_from(self.inner()).unwrap_or(u32::MAX),
                });
            }
        }
        Some(windows)
    }

    /// Tiles of some channels of one sample: all of its tiles, or of one channel.
    pub(super) fn part_of_sample(
        &self,
        sample: u64,
        channels: Range<u64>,
        tiles: Range<u64>,
    ) -> Window {
        let first_of = |channel: u64| sample * self.sample() + channel * self.inner();
        let skipped = (tiles.start - sample * self.partition.segment_tiles) * self.tile_values();
        let left = (tiles.end - tiles.start) * self.tile_values();
        let end = first_of(channels.end - 1) + self.inner().min(skipped + left);
        let span = Span::new(first_of(channels.start) + skipped..end, first_of(0) + skipped)
            .at_sample(sample);
        Window {
            segment_tiles: self.segment_tiles(&tiles),
            tiles,
            channels,
            span,
            first_position: skipped,
            start: 0,
            // No walk through less than a channel of a sample comes to its end.
            inner: u32::try_from(self.inner()).unwrap_or(u32::MAX),
        }
    }
}
