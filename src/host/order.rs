//! In which order the values of an activation lie in memory, and how they are cut into tiles to be summed.
//!
//! The cut depends on the shape alone: sums have the same bits whichever threads take which tile.

use std::ops::Range;

use super::blocks::BLOCK;
use super::lanes::{DEPTH, RUN};
use crate::shape::Shape;

/// Values of a tile of one or more channels: 256 KB of f32, which stays in a core's own cache.
const TILE_VALUES: usize = 64 << 10;
/// Positions below which a row of one channel is too short to be summed by itself: one vector register is half filled.
const SHORTEST_PLANE: usize = 32;
/// Columns of a tile: 4 KB of a row, a page.
const TILE_COLUMNS: usize = 1024;
/// Values of a tile of columns, and the fewest rows of one: enough that the merging of its columns' moments is cheap beside
/// their sums. 1 MB of f32 stays in a processor's caches.
const COLUMN_TILE_VALUES: usize = 256 << 10;
const TILE_ROWS: usize = 256;
/// Columns of a row beside which what a row costs by itself is small: narrower ones are read several at a time.
const FEWEST_COLUMNS: usize = 512;

/// The two orders that the kernels tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Planes(Planes),
    Columns(Columns),
}

/// Runs of `len` values of one channel: sample by sample, channel by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planes {
    pub samples: usize,
    pub channels: usize,
    pub len: usize,
}

/// At most a block of values from address `at` on: `len` ≤ [`RUN`] of each of these channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub at: usize,
    pub channels: Range<usize>,
    pub len: usize,
}

impl Piece {
    /// Its values.
    pub fn values(&self) -> usize {
        self.channels.len() * self.len
    }
}

/// Rows of `width` values, of which the value at j is of channel j / `repeat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub rows: usize,
    pub width: usize,
    pub repeat: usize,
}

impl Order {
    pub fn of(shape: &Shape) -> Self {
        let (samples, channels, len) = (shape.batch(), shape.channels(), shape.spatial_len());
        if channels == 1 {
            return Self::Planes(Planes { samples: 1, channels, len: samples * len });
        }
        if len == 1 || shape.strides().inner != 1 {
            return Self::Columns(Columns { rows: samples * len, width: channels, repeat: 1 });
        }
        if len < SHORTEST_PLANE {
            return Self::Columns(Columns { rows: samples, width: channels * len, repeat: len });
        }
        Self::Planes(Planes { samples, channels, len })
    }
}

impl Planes {
    /// Runs of one channel in a tile, and values of each: whole runs as far as they fit, else an even part of one.
    fn tile(&self) -> (usize, usize) {
        if self.len <= TILE_VALUES {
            ((TILE_VALUES / self.len.max(1)).clamp(1, self.samples.max(1)), self.len)
        } else {
            (1, self.len.div_ceil(self.len.div_ceil(TILE_VALUES)))
        }
    }

    /// The tiles of a channel, in the order in which their sums merge: samples, and values of each sample's run.
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
    ) -> impl Iterator<Item = Piece> + use<> {
        let (planes, part, channels) = (*self, part.clone(), channels.clone());
        let whole = part.len() == self.len && self.len <= RUN;
        // Whole runs of some channels, or a part of the run of one.
        let (step, run) = if whole { (BLOCK / self.len, part.len()) } else { (1, RUN) };
        samples.clone().flat_map(move |sample| {
            let (end, part) = (channels.end, part.clone());
            channels.clone().step_by(step).flat_map(move |first| {
                let (channels, end) = (first..end.min(first + step), part.end);
                let start = planes.run(sample, first).start;
                part.clone().step_by(run).map(move |from| Piece {
                    at: start + from,
                    channels: channels.clone(),
                    len: run.min(end - from),
                })
            })
        })
    }

    /// Where a run of a channel lies.
    pub fn run(&self, sample: usize, channel: usize) -> Range<usize> {
        let start = (sample * self.channels + channel) * self.len;
        start..start + self.len
    }
}

/// Some rows and columns, taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnTile {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    /// Rows that are read as one, where a row is short: all columns of that many.
    pub fold: usize,
}

/// Columns of a patch: half a page of a row.
pub(super) const PATCH_COLUMNS: usize = 512;

/// `len` neighbouring columns of at most [`DEPTH`] rows of a tile.
#[derive(Debug)]
pub(super) struct Patch {
    /// The first of the tile's columns.
    pub column: usize,
    pub len: usize,
    starts: [usize; DEPTH],
    rows: usize,
}

impl Patch {
    /// Where each row of the patch begins.
    pub fn starts(&self) -> &[usize] {
        &self.starts[..self.rows]
    }
}

impl Columns {
    /// The channels of these columns.
    pub fn channels(&self, columns: &Range<usize>) -> Range<usize> {
        columns.start / self.repeat..columns.end / self.repeat
    }

    /// Groups of neighbouring columns, of whole channels.
    pub fn column_groups(&self) -> impl Iterator<Item = Range<usize>> + Clone + use<> {
        let (width, repeat) = (self.width, self.repeat);
        let columns = (TILE_COLUMNS / repeat).max(1) * repeat;
        (0..width).step_by(columns).map(move |start| start..width.min(start + columns))
    }

    /// Rows of every tile but the last.
    fn tile_rows(&self) -> usize {
        let fold = self.fold();
        (COLUMN_TILE_VALUES / self.width.min(TILE_COLUMNS)).max(TILE_ROWS).div_ceil(fold) * fold
    }

    /// The tiles of a group of columns, in the order in which their sums merge.
    pub fn tiles(&self, columns: Range<usize>) -> impl Iterator<Item = ColumnTile> + Clone + use<> {
        let (rows, per_tile, fold) = (self.rows, self.tile_rows(), self.fold());
        (0..rows).step_by(per_tile).map(move |start| ColumnTile {
            rows: start..rows.min(start + per_tile),
            columns: columns.clone(),
            fold,
        })
    }

    /// Tiles of every group of columns.
    pub fn tiles_per_group(&self) -> usize {
        self.rows.div_ceil(self.tile_rows())
    }

    fn fold(&self) -> usize {
        if self.width < FEWEST_COLUMNS { FEWEST_COLUMNS.div_ceil(self.width) } else { 1 }
    }

    /// A tile in patches, from above to below and in them from left to right.
    pub fn patches(&self, tile: &ColumnTile) -> impl Iterator<Item = Patch> + use<> {
        let (columns, tile) = (*self, tile.clone());
        let (fold, end) = (tile.fold, tile.rows.end);
        let width = tile.columns.len() * fold;
        tile.rows.clone().step_by(fold * DEPTH).flat_map(move |first| {
            let rows = end.min(first + fold * DEPTH) - first;
            let count = rows.div_ceil(fold);
            let mut starts = [0; DEPTH];
            for (row, start) in starts.iter_mut().enumerate() {
                *start = (first + row * fold) * columns.width + tile.columns.start;
            }
            // The last of folded rows may be shorter: there the patches have a row less.
            let shorter = (rows - (count - 1) * fold) * width / fold;
            let parts = [(0..shorter, count), (shorter..width, count - 1)];
            parts.into_iter().filter(|(_, rows)| *rows > 0).flat_map(move |(columns, rows)| {
                let end = columns.end;
                columns.step_by(PATCH_COLUMNS).map(move |column| {
                    let starts = starts.map(|start| start + column);
                    Patch { column, len: PATCH_COLUMNS.min(end - column), starts, rows }
                })
            })
        })
    }

    /// The rows of a tile, each as one slice of `values`; the last of folded rows may be shorter.
    pub fn rows<'a, T>(
        &self,
        tile: &ColumnTile,
        values: &'a [T],
    ) -> impl Iterator<Item = (usize, &'a [T])> + use<'a, T> {
        let (width, fold, rows, columns) = (self.width, tile.fold, tile.rows.clone(), tile.columns.clone());
        rows.clone().step_by(fold).map(move |row| {
            let end = if fold == 1 { row * width + columns.end } else { rows.end.min(row + fold) * width };
            let start = row * width + columns.start;
            (start, &values[start..end])
        })
    }
}
