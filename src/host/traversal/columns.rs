//! Columns: channels lie side by side, and each is one or more columns of many rows, as in
//! (N, H, W, C) and (N, C).
//!
//! Owns the cut of rows and columns into tiles, and the walk through a tile in patches.

use std::ops::Range;

use crate::host::simd::DEPTH;

/// Columns of a tile: 4 KB of a row, a page.
const TILE_COLUMNS: usize = 1024;
/// Values of a tile of columns: 2 MB of f32, which stay in a processor's last cache.
const COLUMN_TILE_VALUES: usize = 512 << 10;
/// The fewest rows of a tile: enough that merging its columns' moments is cheap beside their sums.
const TILE_ROWS: usize = 256;
/// Columns of a row beside which what a row costs by itself is small: narrower ones are read
/// several at a time.
const FEWEST_COLUMNS: usize = 512;

/// Rows of `width` values, of which the value at j is of channel j / `repeat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) struct Columns {
    pub rows: usize,
    pub width: usize,
    pub repeat: usize,
}

/// Some rows and columns: what is summed before anything merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct ColumnTile {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    /// Rows that are read as one, where a row is short: all columns of that many.
    pub fold: usize,
}

/// Columns of a patch: half a page of a row.
pub(in crate::host) const PATCH_COLUMNS: usize = 512;

/// `len` neighbouring columns of at most [`DEPTH`] rows of a tile.
#[derive(Debug)]
pub(in crate::host) struct Patch {
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
        let width = self.width;
        let columns = (TILE_COLUMNS / self.repeat).max(1) * self.repeat;
        (0..width).step_by(columns).map(move |start| start..width.min(start + columns))
    }

    /// Rows of every tile but the last.
    fn tile_rows(&self) -> usize {
        let fitting = COLUMN_TILE_VALUES / self.width.min(TILE_COLUMNS);
        fitting.max(TILE_ROWS).next_multiple_of(self.fold())
    }

    /// The tiles of a group of columns, in the order in which their sums merge.
    pub fn tiles(&self, columns: Range<usize>) -> impl Iterator<Item = ColumnTile> + Clone + use<> {
        let rows = self.rows;
        let per_tile = self.tile_rows();
        let fold = self.fold();
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

    /// Rows that are read as one.
    fn fold(&self) -> usize {
        if self.width < FEWEST_COLUMNS { FEWEST_COLUMNS.div_ceil(self.width) } else { 1 }
    }

    /// A tile in patches, from above to below and in them from left to right.
    pub fn patches(&self, tile: &ColumnTile) -> impl Iterator<Item = Patch> + Clone + use<> {
        let columns = *self;
        let tile = tile.clone();
        let fold = tile.fold;
        let end = tile.rows.end;
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
        let width = self.width;
        let ColumnTile { rows, columns, fold } = tile.clone();
        rows.clone().step_by(fold).map(move |row| {
            let end = if fold == 1 {
                row * width + columns.end
            } else {
                rows.end.min(row + fold) * width
            };
            let start = row * width + columns.start;
            (start, &values[start..end])
        })
    }
}
