//! The walk through an activation: planes in pieces, columns in patches, tile by tile on any
//! thread. Sums of tiles merge in any order with the same bits.

use std::ops::Range;
use std::sync::OnceLock;

use pulp::{Arch, Simd, WithSimd};

use super::columns::ColumnGrids;
use super::lanes::DEPTH;
use super::source::Source;
use super::task::Task;
use super::terms::scale_and_offset;
use super::{ChannelRange, Channels, Grids};
use crate::host::apply::{Affine, Run};
use crate::host::block_io::{BLOCK, Block, Scratch};
use crate::host::channel_params::{ChannelParams, repeat_each};
use crate::host::fused::{CHANNELS_AT_ONCE, at_once};
use crate::host::reduce::Reduction;
use crate::host::threads::Threads;
use crate::host::traversal::{ColumnTile, Columns, PATCH_COLUMNS, PlaneTile, Planes, Traversal};
use crate::shape::Shape;
use crate::stats::GridParams;

/// An activation that is gone through.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a, F> {
    pub source: F,
    pub shape: &'a Shape,
    /// By channel, where a source needs them.
    pub affine: &'a [Affine],
    /// By channel, where integers are summed.
    pub grids: Grids<'a>,
    pub channels: ChannelRange<'a>,
}

impl<'a, F: Source> Walk<'a, F> {
    /// The results of a task for every channel.
    pub fn take<T: Task>(&self) -> Vec<T::Of> {
        match self.channels {
            ChannelRange::All(threads) => self.take_all::<T>(threads),
            ChannelRange::Some(Channels { planes, channels }) => {
                self.take_some::<T>(planes, channels)
            }
        }
    }

    /// The same on the threads of a pool.
    fn take_all<T: Task>(&self, threads: &Threads) -> Vec<T::Of> {
        let traversal = Traversal::of(self.shape);
        let reduction = Reduction {
            traversal,
            channels: self.shape.channels(),
            bytes: self.source.bytes(),
            empty: T::NONE,
            threads,
        };
        let params = OnceLock::new();
        let of_planes = |planes, channels: Range<usize>, tile: PlaneTile, part: &mut [T::Of]| {
            self.tile::<T>(planes, channels, tile, part);
        };
        let of_columns = |columns: Columns<'_>, tile: &ColumnTile| {
            let params = params.get_or_init(|| {
                if self.affine.is_empty() {
                    // Of a source that needs none.
                    ChannelParams::of_planes(0, 0, 0, &[])
                } else {
                    ChannelParams::new(traversal, self.affine)
                }
            });
            let channels = columns.channels(&tile.columns);
            let width = tile.columns.len() * tile.fold;
            let grids = self.grids.by_column(channels.clone(), columns, tile.fold);
            let mut sums = T::by_column(width);
            Arch::new().dispatch(ColumnKernel::<F, T> {
                walk: self,
                columns,
                tile,
                params,
                grids: &grids,
                sums: &mut sums,
            });
            T::of_columns(&sums, columns, channels.len())
        };
        reduction.reduce(of_planes, of_columns, merge::<T>)
    }

    /// The same of some channels of planes, on this thread.
    fn take_some<T: Task>(&self, planes: Planes<'a>, channels: &Range<usize>) -> Vec<T::Of> {
        let mut all = vec![T::NONE; channels.len()];
        let mut of_tile = all.clone();
        for tile in planes.tiles() {
            of_tile.fill(T::NONE);
            for (channels, of_tile) in at_once(channels).zip(of_tile.chunks_mut(CHANNELS_AT_ONCE)) {
                self.tile::<T>(planes, channels, tile.clone(), of_tile);
            }
            merge::<T>(&mut all, &of_tile);
        }
        all
    }

    /// Where what is listed by channel has these.
    fn listed(&self, channels: &Range<usize>) -> Range<usize> {
        let first = self.channels.first();
        channels.start - first..channels.end - first
    }

    /// Writes the results of a task for some channels of a tile of planes to `to`.
    fn tile<T: Task>(
        &self,
        planes: Planes<'a>,
        channels: Range<usize>,
        tile: PlaneTile,
        to: &mut [T::Of],
    ) {
        // If all sums are 0, nothing has to be read.
        if self.grids.are_zero(&self.listed(&channels)) {
            return;
        }
        Scratch::lend(|scratch| {
            let kernel = PlaneKernel::<F, T> { walk: self, planes, channels, tile, to, scratch };
            Arch::new().dispatch(kernel);
        });
    }
}

/// Merges what every channel of a tile has with what it had.
fn merge<T: Task>(to: &mut [T::Of], tile: &[T::Of]) {
    to.iter_mut().zip(tile).for_each(|(to, tile)| T::merge(to, *tile));
}

impl Grids<'_> {
    /// Those of both values of every column.
    fn by_column(&self, channels: Range<usize>, columns: Columns<'_>, fold: usize) -> ColumnGrids {
        let spread = |grids: &[GridParams], part: usize| {
            let mut row = Vec::with_capacity(channels.len() * columns.repeat * fold);
            let of_channels = channels
                .clone()
                .map(|channel| grids.get(channel).map_or(0.0, |grid| scale_and_offset(grid)[part]));
            repeat_each(of_channels, columns.repeat, &mut row);
            let width = row.len();
            (1..fold).for_each(|_| row.extend_from_within(..width));
            row
        };
        ColumnGrids {
            x: [spread(self.x, 0), spread(self.x, 1)],
            g: [spread(self.g, 0), spread(self.g, 1)],
        }
    }
}

/// Some channels of a tile of planes.
///
/// ```text
/// for piece of at most 1024 values of the tile, sample by sample:
///     x, g ← the piece as f32               where they lie, or widened into blocks
///     for channel in the piece:
///         prefetch the channel's values in the next sample, if runs are short
///         lanes[channel] += the values
/// to ← the lanes of each channel added up
/// ```
///
/// 1. Integers add in any order, so each channel keeps one sum per lane over the whole tile. The
///    lanes are added up once, at its end.
/// 2. f32 is read in place. 16-bit values are widened into blocks of 4 KB, which stay in the first
///    cache.
/// 3. The prefetch serves samples whose runs are short. The hardware prefetches longer ones.
/// 4. Only channels in units other than 1 pay for the product with the unit.
struct PlaneKernel<'k, 'a, F, T: Task> {
    walk: &'k Walk<'a, F>,
    planes: Planes<'a>,
    channels: Range<usize>,
    tile: PlaneTile,
    to: &'k mut [T::Of],
    scratch: &'k mut Scratch,
}

impl<F: Source, T: Task> WithSimd for PlaneKernel<'_, '_, F, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { walk, planes, channels, tile, to, scratch } = self;
        let mut lanes = vec![T::lanes(); channels.len()];
        let Scratch { x: x_to, g: g_to, v, residual, to: scaled } = scratch;
        let affine = walk.affine.get(walk.listed(&channels)).unwrap_or_default();
        let params = ChannelParams::of_planes(planes.channels, planes.len, channels.start, affine);
        for piece in planes.pieces(&tile, &channels) {
            let run = Run { at: piece.at, n: piece.values() };
            let blocks = [&mut x_to.0[..], &mut g_to.0[..]];
            let [x, g] = walk.source.read(simd, run, &params, [v, residual], blocks);
            for (k, channel) in piece.channels.enumerate() {
                let start = k * piece.len;
                if let Some(next) = piece.prefetch {
                    walk.source.prefetch(next + start, piece.len);
                }
                let (units, grids) = walk.grids.of(channel - walk.channels.first());
                let lanes = &mut lanes[channel - channels.start];
                let values = [&x[start..], &g[start..]];
                if units == [1.0; 2] {
                    T::add(simd, lanes, values, piece.len, grids);
                    continue;
                }
                // By halves of a block, which both have room for.
                let [x, g] = values.map(|of| of[..piece.len].chunks(BLOCK / 2));
                let (x_scaled, g_scaled) = scaled.0.split_at_mut(BLOCK / 2);
                for (x, g) in x.zip(g) {
                    let now = [scale(x, units[0], x_scaled), scale(g, units[1], g_scaled)];
                    T::add(simd, lanes, now, x.len(), grids);
                }
            }
        }
        to.iter_mut().zip(lanes).for_each(|(to, lanes)| *to = T::of_lanes(lanes));
    }
}

/// Values in another unit: exact, but for those that are far below the range.
fn scale<'s>(values: &[f32], unit: f32, to: &'s mut [f32]) -> &'s [f32] {
    let to = &mut to[..values.len()];
    to.iter_mut().zip(values).for_each(|(to, value)| *to = value * unit);
    to
}

/// A tile of columns.
///
/// ```text
/// for patch of at most 512 columns and 16 rows:
///     prefetch the rows of the next patch
///     x, g ← the rows as f32                where they lie, or widened into blocks
///     sums ← sums + the rows, in registers from the first to the last
/// ```
///
/// 1. Rows are summed elementwise, so no sum crosses the lanes of a register.
/// 2. Each sum is loaded and stored once per 16 rows.
/// 3. The prefetch is for rows that lie far apart. Folded rows follow each other in memory, and the
///    hardware prefetches them.
struct ColumnKernel<'k, 'a, F, T: Task> {
    walk: &'k Walk<'a, F>,
    columns: Columns<'a>,
    tile: &'k ColumnTile,
    params: &'k ChannelParams<'k, 3>,
    grids: &'k ColumnGrids,
    sums: &'k mut T::ByColumn,
}

/// Rows of a patch as f32.
type Rows = [[[f32; PATCH_COLUMNS]; 2]; DEPTH];

impl<F: Source, T: Task> WithSimd for ColumnKernel<'_, '_, F, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { walk, columns, tile, params, grids, sums } = self;
        let mut v = Block::ZERO;
        let mut residual = Block::ZERO;
        let mut to: Box<Rows> = Box::new([[[0.0; PATCH_COLUMNS]; 2]; DEPTH]);
        let mut scaled: Option<Box<Rows>> = None;
        let source = &walk.source;
        let has_units = walk.grids.has_units();
        let patches = columns.patches(tile);
        for (patch, next) in patches.clone().zip(patches.skip(1).map(Some).chain([None])) {
            let starts = patch.starts();
            let mut rows: [[&[f32]; 2]; DEPTH] = [[&[]; 2]; DEPTH];
            let next = next.filter(|_| tile.fold == 1);
            let mut prefetched =
                next.iter().flat_map(|next| next.starts().iter().map(|start| (*start, next.len)));
            for ((row, start), [x_to, g_to]) in rows.iter_mut().zip(starts).zip(to.iter_mut()) {
                if let Some((start, len)) = prefetched.next() {
                    source.prefetch(start, len);
                }
                let run = Run { at: *start, n: patch.len };
                let scratch = [&mut v, &mut residual];
                *row = source.read(simd, run, params, scratch, [&mut x_to[..], &mut g_to[..]]);
            }
            let rows = &mut rows[..starts.len()];
            if has_units {
                let units = walk.grids.units_of(columns, tile, patch.column, patch.len);
                let scaled =
                    scaled.get_or_insert_with(|| Box::new([[[0.0; PATCH_COLUMNS]; 2]; DEPTH]));
                for (row, [x_to, g_to]) in rows.iter_mut().zip(scaled.iter_mut()) {
                    let [x, g] = *row;
                    for (i, [x_unit, g_unit]) in units.iter().enumerate() {
                        x_to[i] = x[i] * x_unit;
                        g_to[i] = g[i] * g_unit;
                    }
                    *row = [&x_to[..patch.len], &g_to[..patch.len]];
                }
            }
            T::add_rows(simd, sums, patch.column, patch.len, grids, rows);
        }
    }
}
