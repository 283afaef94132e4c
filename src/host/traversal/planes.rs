//! Planes: each channel has runs of memory of its own, one per sample, as in (N, C, H, W).
//!
//! Owns the cut of planes into tiles, and the walk through a tile in pieces of at most a block.

use std::ops::Range;

use crate::host::block_io::BLOCK;

/// Values of a tile of one or more channels: 256 KB of f32, which stays in a core's own cache.
const TILE_VALUES: usize = 64 << 10;
/// Values of a sample up to which those of the next one are prefetched by software: the processor's
/// own prefetcher follows a longer run, and less than that of two samples is sure to stay in its
/// caches.
const PREFETCH_VALUES: usize = 8 << 10;

/// Values of an activation up to which it may still be in a core's own cache.
const CACHED_VALUES: usize = 128 << 10;

/// Runs of `len` values of one channel: sample by sample, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) struct Planes<'a> {
    pub samples: usize,
    pub channels: usize,
    pub len: usize,
    /// Positions that count, by sample, where not all do: the first ones of each run.
    pub valid: Option<&'a [usize]>,
}

/// The values of a channel that are summed before sums merge: some samples, and some positions of
/// each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct PlaneTile {
    pub samples: Range<usize>,
    pub positions: Range<usize>,
}

/// At most a block of values from address `at` on: `len` of each of these channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct Piece {
    pub at: usize,
    pub channels: Range<usize>,
    pub len: usize,
    /// Where the same values of the next sample lie, if they are to be prefetched.
    pub prefetch: Option<usize>,
}

impl Piece {
    /// Its values.
    pub fn values(&self) -> usize {
        self.channels.len() * self.len
    }
}

/// The pieces of a tile, see [`Planes::pieces`].
#[derive(Clone, Debug)]
pub(in crate::host) struct Pieces<'a> {
    planes: Planes<'a>,
    samples: Range<usize>,
    channels: Range<usize>,
    positions: Range<usize>,
    /// Where those of the current sample end.
    end: usize,
    channels_at_once: usize,
    len: usize,
    /// Whether what is read of a sample is so short that the next sample's is prefetched.
    prefetches: bool,
    /// Where the next piece begins.
    channel: usize,
    position: usize,
}

impl Pieces<'_> {
    /// Passes samples of which nothing counts here.
    fn enter_sample(&mut self) {
        while !self.samples.is_empty() {
            self.end = self.planes.counted(self.samples.start, &self.positions).end;
            if self.end > self.positions.start {
                return;
            }
            self.samples.start += 1;
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    #[inline(always)]
    fn next(&mut self) -> Option<Piece> {
        if self.samples.is_empty() {
            return None;
        }
        let sample = self.samples.start;
        let planes = self.planes;
        let sample_values = planes.channels * planes.len;
        let at = sample * sample_values + self.channel * planes.len + self.position;
        let has_next = sample + 1 < planes.samples;
        let piece = Piece {
            at,
            channels: self.channel..self.channels.end.min(self.channel + self.channels_at_once),
            len: self.len.min(self.end - self.position),
            prefetch: (self.prefetches && has_next).then_some(at + sample_values),
        };
        self.position += self.len;
        if self.position >= self.end {
            self.position = self.positions.start;
            self.channel = piece.channels.end;
            if self.channel >= self.channels.end {
                self.channel = self.channels.start;
                self.samples.start += 1;
                self.enter_sample();
            }
        }
        Some(piece)
    }
}

/// The largest tile of a plane.
struct TileSize {
    /// Runs of one channel, each of another sample.
    samples: usize,
    /// Values of each run.
    positions: usize,
}

impl<'a> Planes<'a> {
    /// Which of these positions of a sample count.
    pub fn counted(&self, sample: usize, positions: &Range<usize>) -> Range<usize> {
        let valid = self.valid.map_or(self.len, |valid| valid[sample]);
        positions.start..positions.end.min(valid).max(positions.start)
    }

    /// Values of a tile that count, of each channel.
    pub fn count(&self, tile: &PlaneTile) -> usize {
        let PlaneTile { samples, positions } = tile;
        if self.valid.is_none() {
            return samples.len() * positions.len();
        }
        samples.clone().map(|sample| self.counted(sample, positions).len()).sum()
    }

    /// Whole runs as far as they fit, else an even part of one.
    fn tile_size(&self) -> TileSize {
        if self.len <= TILE_VALUES {
            let fitting = TILE_VALUES / self.len.max(1);
            TileSize { samples: fitting.clamp(1, self.samples.max(1)), positions: self.len }
        } else {
            let tiles = self.len.div_ceil(TILE_VALUES);
            TileSize { samples: 1, positions: self.len.div_ceil(tiles) }
        }
    }

    /// The tiles of a channel, in the order in which their sums merge.
    pub fn tiles(&self) -> impl Iterator<Item = PlaneTile> + Clone + use<'a> {
        let planes = *self;
        let Self { samples, len, .. } = planes;
        let size = self.tile_size();
        let most_samples = size.samples;
        let most_positions = size.positions.max(1);
        let tiles = (0..samples).step_by(most_samples).flat_map(move |sample| {
            (0..len).step_by(most_positions).map(move |position| PlaneTile {
                samples: sample..samples.min(sample + most_samples),
                positions: position..len.min(position + most_positions),
            })
        });
        // Without a value there is nothing to merge.
        tiles.filter(move |tile| planes.valid.is_none() || planes.count(tile) > 0)
    }

    /// Channels whose tiles are summed side by side, so that memory is read in long runs.
    pub fn channels_per_tile(&self) -> usize {
        let size = self.tile_size();
        let values = size.samples * size.positions;
        (TILE_VALUES / values.max(1)).clamp(1, self.channels)
    }

    /// The values of some channels in a tile, a piece of memory after the other, sample by sample.
    pub fn pieces(&self, tile: &PlaneTile, channels: &Range<usize>) -> Pieces<'a> {
        let PlaneTile { samples, positions } = tile.clone();
        // Between the runs of a padded sample lies what does not count.
        let is_whole = positions.len() == self.len && self.len <= BLOCK && self.valid.is_none();
        // Whole runs of some channels, or a part of the run of one.
        let (channels_at_once, len) =
            if is_whole { (BLOCK / self.len, self.len) } else { (1, BLOCK) };
        let mut pieces = Pieces {
            planes: *self,
            end: positions.end,
            samples,
            channels: channels.clone(),
            channels_at_once,
            len,
            prefetches: self.prefetches(channels.len() * positions.len()),
            channel: channels.start,
            position: positions.start,
            positions,
        };
        pieces.enter_sample();
        pieces
    }

    /// Whether the next sample is prefetched where so many values are read of each.
    fn prefetches(&self, of_sample: usize) -> bool {
        of_sample <= PREFETCH_VALUES && self.samples * self.channels * self.len > CACHED_VALUES
    }

    /// Where a run of a channel lies.
    pub fn run(&self, sample: usize, channel: usize) -> Range<usize> {
        let start = (sample * self.channels + channel) * self.len;
        start..start + self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_every_value_of_a_tile_once_sample_by_sample_and_prefetch_the_next_sample() {
        for (len, positions) in [
            (1, 0..1),
            (49, 0..49),
            (784, 0..784),
            (1024, 0..1024),
            (3000, 0..3000),
            (90_000, 30_000..60_000),
        ] {
            let planes = Planes { samples: 5, channels: 40, len, valid: None };
            let is_whole = positions.len() == len;
            let (samples, channels) = if is_whole { (2..5, 3..25) } else { (2..3, 7..8) };
            let tile = PlaneTile { samples: samples.clone(), positions: positions.clone() };
            let mut found = Vec::new();
            for piece in planes.pieces(&tile, &channels) {
                assert!(piece.values() <= BLOCK, "{piece:?}");
                found.extend(piece.at..piece.at + piece.values());
                let next = piece.at + planes.channels * len;
                let prefetches = planes.prefetches(channels.len() * positions.len())
                    && next < 5 * planes.channels * len;
                assert_eq!(piece.prefetch, prefetches.then_some(next), "{piece:?}");
            }
            let runs = samples.flat_map(|sample| {
                channels.clone().map(move |channel| planes.run(sample, channel).start)
            });
            let expected: Vec<usize> =
                runs.flat_map(|start| start + positions.start..start + positions.end).collect();
            assert_eq!(found, expected, "runs of {len}");
        }
    }
}
