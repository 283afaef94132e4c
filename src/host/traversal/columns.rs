//! Columns: channels lie side by side, and each is one or more columns of many rows, as in
//! (N, H, W, C) and (N, C).
//!
//! Owns the cut of rows and columns into tiles, and the walk through a tile in patches.

use std::ops::Range;

use smallvec::{SmallVec, smallvec};

use crate::host::simd::DEPTH;

/// Columns of a tile: 4 KB of a row, a page.
const TILE_COLUMNS: usize = 1024;
/// Values of a tile of columns: 2 MB of f32, which stay in a processor's last cache. A tile has 512
/// rows or more, so merging its columns' moments is cheap beside their sums.
const COLUMN_TILE_VALUES: usize = 512 << 10;
/// Columns of a row beside which what a row costs by itself is small: narrower ones are read
/// several at a time.
const FEWEST_COLUMNS: usize = 512;

/// Rows of `width` values, of which the value at j is of channel j / `repeat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) struct Columns<'a> {
    pub rows: usize,
    pub width: usize,
    pub repeat: usize,
    /// Which rows count, where not all do.
    pub blocks: Option<Blocks<'a>>,
}

/// Rows of padded samples: of the `len` of each sample those count that come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) struct Blocks<'a> {
    pub valid: &'a [usize],
    pub len: usize,
}

/// Some rows and columns, whose values are summed before sums merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct ColumnTile {
    /// Ranges of neighbouring rows: one, unless samples are padded.
    pub blocks: SmallVec<[Range<usize>; 1]>,
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

impl ColumnTile {
    /// Its rows.
    pub fn rows(&self) -> usize {
        self.blocks.iter().map(Range::len).sum()
    }

    /// Where the `index`th of its rows lies.
    pub fn row(&self, mut index: usize) -> usize {
        for block in &self.blocks {
            if index < block.len() {
                return block.start + index;
            }
            index -= block.len();
        }
        0
    }
}

impl<'a> Columns<'a> {
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
        fitting.next_multiple_of(self.fold())
    }

    /// The tiles of a group of columns, in the order in which their sums merge.
    pub fn tiles(
        &self,
        columns: Range<usize>,
    ) -> impl Iterator<Item = ColumnTile> + Clone + use<'_, 'a> {
        let fold = self.fold();
        self.row_blocks().into_iter().map(move |blocks| ColumnTile {
            blocks,
            columns: columns.clone(),
            fold,
        })
    }

    /// Tiles of every group of columns.
    pub fn tiles_per_group(&self) -> usize {
        self.row_blocks().len()
    }

    /// The rows of every tile: neighbouring ones, or what counts of padded samples until that is as
    /// much.
    fn row_blocks(&self) -> Vec<SmallVec<[Range<usize>; 1]>> {
        let per_tile = self.tile_rows();
        let Some(Blocks { valid, len }) = self.blocks else {
            let tiles = (0..self.rows).step_by(per_tile);
            return tiles.map(|start| smallvec![start..self.rows.min(start + per_tile)]).collect();
        };
        let mut tiles = Vec::new();
        let mut blocks = SmallVec::new();
        let mut room = per_tile;
        for (sample, &valid) in valid.iter().enumerate() {
            let mut rows = sample * len..sample * len + valid;
            while !rows.is_empty() {
                let end = rows.end.min(rows.start + room);
                room -= end - rows.start;
                blocks.push(rows.start..end);
                rows.start = end;
                if room == 0 {
                    tiles.push(std::mem::take(&mut blocks));
                    room = per_tile;
                }
            }
        }
        if !blocks.is_empty() {
            tiles.push(blocks);
        }
        tiles
    }

    /// Rows that are read as one.
    fn fold(&self) -> usize {
        if self.width < FEWEST_COLUMNS { FEWEST_COLUMNS.div_ceil(self.width) } else { 1 }
    }

    /// A tile in patches, from above to below and in them from left to right.
    pub fn patches(&self, tile: &ColumnTile) -> impl Iterator<Item = Patch> + Clone + use<'a> {
        let columns = *self;
        let ColumnTile { blocks, columns: of_tile, fold } = tile.clone();
        let in_blocks = blocks.into_iter();
        in_blocks.flat_map(move |rows| columns.patches_of(rows, of_tile.clone(), fold))
    }

    /// Neighbouring rows in patches.
    fn patches_of(
        &self,
        rows: Range<usize>,
        of_tile: Range<usize>,
        fold: usize,
    ) -> impl Iterator<Item = Patch> + Clone + use<'a> {
        let columns = *self;
        let end = rows.end;
        let width = of_tile.len() * fold;
        rows.step_by(fold * DEPTH).flat_map(move |first| {
            let rows = end.min(first + fold * DEPTH) - first;
            let count = rows.div_ceil(fold);
            let mut starts = [0; DEPTH];
            for (row, start) in starts.iter_mut().enumerate() {
                *start = (first + row * fold) * columns.width + of_tile.start;
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
    pub fn rows<'v, T>(
        &self,
        tile: &ColumnTile,
        values: &'v [T],
    ) -> impl Iterator<Item = (usize, &'v [T])> + use<'a, 'v, T> {
        let width = self.width;
        let ColumnTile { blocks, columns, fold } = tile.clone();
        let rows = blocks.into_iter().flat_map(move |rows| {
            let last = rows.end;
            rows.step_by(fold).map(move |row| row..last.min(row + fold))
        });
        rows.map(move |rows| {
            let end = if fold == 1 { rows.start * width + columns.end } else { rows.end * width };
            let start = rows.start * width + columns.start;
            (start, &values[start..end])
        })
    }
}
