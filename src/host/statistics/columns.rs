//! Moments of tiles of columns: every column is summed about the pivot of its channel, then the
//! columns of a channel are added up.

use std::iter::Sum;

use pulp::{Arch, Simd, WithSimd};

use super::{ATTEMPTS, Verdict, in_f64, judge};
use crate::dtype::{DType, Element};
use crate::host::block_io::read;
use crate::host::channel_params::repeat_each;
use crate::host::convert::widen;
use crate::host::intrinsics::prefetch;
use crate::host::simd::{ColumnSums, PatchSums, ROWS};
use crate::host::traversal::{ColumnTile, Columns, PATCH_COLUMNS};
use crate::stats::Moments;

/// Rows of a tile of which its pivots are the means.
const GUESS_ROWS: usize = 8;

/// Bytes that the last cache of a processor may hold.
pub(in crate::host) const LAST_CACHE_BYTES: usize = 32 << 20;

/// The moments of the channels of a tile of columns.
pub(super) fn column_stats<X: Element>(
    x: &[X],
    columns: Columns<'_>,
    tile: &ColumnTile,
) -> Vec<Moments> {
    let channels = columns.channels(&tile.columns).len();
    let mut pivots = guess_pivots(x, columns, tile);
    let by_column = |pivots: &[f32]| by_column(pivots, columns, tile.fold);
    let count = tile.rows() * columns.repeat;
    let mut sums = ColumnSums::new(by_column(&pivots));
    for attempt in 1..=ATTEMPTS {
        Arch::new().dispatch(ColumnStatsKernel { x, columns, tile, sums: &mut sums });
        let totals = totals(&sums, columns, channels);
        let verdicts =
            pivots.iter().zip(&totals).map(|(pivot, totals)| judge(count, *pivot, *totals));
        let verdicts: Vec<Verdict> = verdicts.collect();
        let again = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Again(_)));
        if !again || attempt == ATTEMPTS {
            let settled =
                verdicts.into_iter().enumerate().map(|(channel, verdict)| match verdict {
                    Verdict::Done(stats) => stats,
                    _ => in_f64(values_of(x, columns, tile, channel).into_iter()),
                });
            return settled.collect();
        }
        for (pivot, verdict) in pivots.iter_mut().zip(verdicts) {
            if let Verdict::Again(better) = verdict {
                *pivot = better;
            }
        }
        sums.pivots = by_column(&pivots);
        sums.clear();
    }
    Vec::new()
}

/// The values of one channel of a tile, row by row.
fn values_of<X: Element>(
    x: &[X],
    columns: Columns<'_>,
    tile: &ColumnTile,
    channel: usize,
) -> Vec<f32> {
    let period = tile.columns.len();
    let is_of_channel = |column: usize| column % period / columns.repeat == channel;
    let mut values = Vec::new();
    for (_, row) in columns.rows(tile, x) {
        let of_channel = row.iter().enumerate().filter(|(column, _)| is_of_channel(*column));
        values.extend(of_channel.map(|(_, x)| x.to_f32()));
    }
    values
}

/// The sums of every column of a tile, each about the pivot of its channel.
///
/// ```text
/// for patch of at most 512 columns and 16 rows:
///     partial ← 0                              4 KB: two f32 for each column
///     for 1 row or 4 rows of the patch:
///         prefetch as many rows of the next patch
///         x ← these rows as f32                where they lie, or widened
///         partial += d, d²                     see `simd::columns`
///     sums += partial                          f32 to f64, 16 rows deep
/// ```
///
/// 1. Memory-bound: a patch's sums and its pivots, 6 KB, stay in the first cache, so that all
///    traffic is x itself.
/// 2. A patch is half a page wide. The next one lies beside it or 16 rows further, where a hardware
///    prefetcher does not follow: software prefetching asks for its rows while this one is summed.
/// 3. From memory, rows of f32 are read one after the other, because a core keeps up with few
///    streams at once. Four at once are for what the last cache holds, and for 16-bit types, whose
///    conversion takes longer than their bytes.
/// 4. The sums of a column are in the order of its rows, however many are read at once.
struct ColumnStatsKernel<'t, X> {
    x: &'t [X],
    columns: Columns<'t>,
    tile: &'t ColumnTile,
    sums: &'t mut ColumnSums,
}

impl<X: Element> WithSimd for ColumnStatsKernel<'_, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let is_memory_bound = size_of_val(self.x) > LAST_CACHE_BYTES && X::DTYPE == DType::F32;
        let at_once = if is_memory_bound { 1 } else { ROWS };
        let mut scratch = [[0.0; PATCH_COLUMNS]; ROWS];
        let patches = self.columns.patches(self.tile);
        for (patch, next) in patches.clone().zip(patches.skip(1).map(Some).chain([None])) {
            let mut of_patch = PatchSums::new(patch.column, patch.len);
            let mut prefetched =
                next.iter().flat_map(|next| next.starts().iter().map(|start| (*start, next.len)));
            for starts in patch.starts().chunks(at_once) {
                for (start, len) in prefetched.by_ref().take(at_once) {
                    prefetch(&self.x[start..start + len]);
                }
                let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
                for ((row, start), scratch) in rows.iter_mut().zip(starts).zip(&mut scratch) {
                    *row = read(&self.x[*start..], patch.len, scratch);
                }
                self.sums.add_moments(simd, &mut of_patch, &rows[..starts.len()]);
            }
            self.sums.take(&of_patch);
        }
    }
}

/// A pivot per channel as a pivot per column of `fold` rows.
pub(in crate::host) fn by_column(
    of_channel: &[f32],
    columns: Columns<'_>,
    fold: usize,
) -> Vec<f32> {
    let mut row = Vec::with_capacity(of_channel.len() * columns.repeat * fold);
    repeat_each(of_channel.iter().copied(), columns.repeat, &mut row);
    for _ in 1..fold {
        row.extend_from_within(..of_channel.len() * columns.repeat);
    }
    row
}

/// Both sums of every channel: of each column over the folded rows, then over the channel's columns
/// from left to right.
pub(in crate::host) fn totals(
    sums: &ColumnSums,
    columns: Columns<'_>,
    channels: usize,
) -> Vec<[f64; 2]> {
    let width = channels * columns.repeat;
    let [first, second] = [0, 1].map(|k| {
        let mut totals = sums.sums[k][..width].to_vec();
        for row in sums.sums[k][width..].chunks(width) {
            totals.iter_mut().zip(row).for_each(|(total, sum)| *total += sum);
        }
        add_neighbours(totals, columns.repeat)
    });
    first.into_iter().zip(second).map(|(first, second)| [first, second]).collect()
}

/// The sum of every so many values.
fn add_neighbours<T: Copy + Sum>(values: Vec<T>, count: usize) -> Vec<T> {
    if count == 1 {
        return values;
    }
    values.chunks(count).map(|values| values.iter().copied().sum()).collect()
}

/// A pivot for every channel of a tile of columns: the mean of [`GUESS_ROWS`] rows spread over the
/// tile. Neighbouring rows are often alike, and one bad guess means summing the whole tile again.
fn guess_pivots<X: Element>(x: &[X], columns: Columns<'_>, tile: &ColumnTile) -> Vec<f32> {
    let period = tile.columns.len();
    let of_tile = tile.rows();
    let rows = of_tile.min(GUESS_ROWS);
    let mut sums = vec![0.0; period];
    let mut scratch = vec![0.0; period];
    for guess in 0..rows {
        let row = tile.row(guess * of_tile / rows);
        widen(&x[row * columns.width + tile.columns.start..][..period], &mut scratch);
        sums.iter_mut().zip(&scratch).for_each(|(sum, x)| *sum += x);
    }
    let part = 1.0 / (rows * columns.repeat).max(1) as f32;
    let mut means = add_neighbours(sums, columns.repeat);
    for mean in &mut means {
        *mean *= part;
        if !mean.is_finite() {
            *mean = 0.0;
        }
    }
    means
}
