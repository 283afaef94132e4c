//! Channels that lie apart: each has runs of memory of its own.

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
pub(in crate::host) struct Planes {
    pub samples: usize,
    pub channels: usize,
    pub len: usize,
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
pub(in crate::host) struct Pieces {
    planes: Planes,
    samples: Range<usize>,
    channels: Range<usize>,
    part: Range<usize>,
    channels_at_once: usize,
    len: usize,
    /// Whether what is read of a sample is so short that the next sample's is prefetched.
    prefetches: bool,
    /// Where the next piece begins.
    channel: usize,
    from: usize,
}

impl Iterator for Pieces {
    type Item = Piece;

    #[inline(always)]
    fn next(&mut self) -> Option<Piece> {
        if self.samples.is_empty() {
            return None;
        }
        let (sample, planes) = (self.samples.start, self.planes);
        let sample_values = planes.channels * planes.len;
        let at = sample * sample_values + self.channel * planes.len + self.from;
        let has_next = sample + 1 < planes.samples;
        let piece = Piece {
            at,
            channels: self.channel..self.channels.end.min(self.channel + self.channels_at_once),
            len: self.len.min(self.part.end - self.from),
            prefetch: (self.prefetches && has_next).then_some(at + sample_values),
        };
        self.from += self.len;
        if self.from >= self.part.end {
            self.from = self.part.start;
            self.channel = piece.channels.end;
            if self.channel >= self.channels.end {
                self.channel = self.channels.start;
                self.samples.start += 1;
            }
        }
        Some(piece)
    }
}

impl Planes {
    /// Runs of one channel in a tile, and values of each: whole runs as far as they fit, else an
    /// even part of one.
    fn tile(&self) -> (usize, usize) {
        if self.len <= TILE_VALUES {
            ((TILE_VALUES / self.len.max(1)).clamp(1, self.samples.max(1)), self.len)
        } else {
            (1, self.len.div_ceil(self.len.div_ceil(TILE_VALUES)))
        }
    }

    /// The tiles of a channel, in the order in which their sums merge: samples, and values of each
    /// sample's run.
    pub fn tiles(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + Clone + use<> {
        let Self { samples, len, .. } = *self;
        let (per_tile, part) = self.tile();
        (0..samples).step_by(per_tile).flat_map(move |sample| {
            let run = (0..len).step_by(part.max(1)).map(move |start| start..len.min(start + part));
            run.map(move |run| (sample..samples.min(sample + per_tile), run))
        })
    }

    /// Channels whose tiles are summed together, so that memory is read in long runs.
    pub fn channels_per_tile(&self) -> usize {
        let (samples, part) = self.tile();
        (TILE_VALUES / (samples * part).max(1)).clamp(1, self.channels)
    }

    /// The values of some channels in a tile, a piece of memory after the other, sample by sample.
    pub fn pieces(
        &self,
        (samples, part): &(Range<usize>, Range<usize>),
        channels: &Range<usize>,
    ) -> Pieces {
        let whole = part.len() == self.len && self.len <= BLOCK;
        // Whole runs of some channels, or a part of the run of one.
        let (channels_at_once, len) = if whole { (BLOCK / self.len, self.len) } else { (1, BLOCK) };
        Pieces {
            planes: *self,
            samples: samples.clone(),
            channels: channels.clone(),
            part: part.clone(),
            channels_at_once,
            len,
            prefetches: self.prefetches(channels.len() * part.len()),
            channel: channels.start,
            from: part.start,
        }
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
        for (len, part) in [
            (1, 0..1),
            (49, 0..49),
            (784, 0..784),
            (1024, 0..1024),
            (3000, 0..3000),
            (90_000, 30_000..60_000),
        ] {
            let planes = Planes { samples: 5, channels: 40, len };
            let (samples, channels) = if part.len() == len { (2..5, 3..25) } else { (2..3, 7..8) };
            let tile = (samples.clone(), part.clone());
            let mut found = Vec::new();
            for piece in planes.pieces(&tile, &channels) {
                assert!(piece.values() <= BLOCK, "{piece:?}");
                found.extend(piece.at..piece.at + piece.values());
                let next = piece.at + planes.channels * len;
                let prefetches = planes.prefetches(channels.len() * part.len())
                    && next < 5 * planes.channels * len;
                assert_eq!(piece.prefetch, prefetches.then_some(next), "{piece:?}");
            }
            let runs = samples.flat_map(|sample| {
                channels.clone().map(move |channel| planes.run(sample, channel).start)
            });
            let expected: Vec<usize> =
                runs.flat_map(|start| start + part.start..start + part.end).collect();
            assert_eq!(found, expected, "runs of {len}");
        }
    }
}
