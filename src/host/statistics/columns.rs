//! Moments of tiles of columns: every column about a pivot of its channel, the columns of a channel
//! added up.

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
const LAST_CACHE_BYTES: usize = 32 << 20;

/// The moments of the channels of a tile of columns.
pub(super) fn column_stats<X: Element>(
    x: &[X],
    columns: Columns,
    tile: &ColumnTile,
) -> Vec<Moments> {
    let period = tile.columns.len();
    let channel_of = |column: usize| column % period / columns.repeat;
    let channels = columns.channels(&tile.columns).len();
    let mut pivots = column_means(x, columns, tile);
    let by_column = |pivots: &[f32]| by_column(pivots, columns, tile.fold);
    let count = tile.rows.len() * columns.repeat;
    let mut sums = ColumnSums::new(by_column(&pivots));
    for attempt in 1..=ATTEMPTS {
        Arch::new().dispatch(AddRows { x, columns, tile, sums: &mut sums });
        let totals = totals(&sums, columns, channels);
        let verdicts =
            pivots.iter().zip(&totals).map(|(pivot, totals)| judge(count, *pivot, *totals));
        let verdicts: Vec<Verdict> = verdicts.collect();
        let again = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Again(_)));
        if !again || attempt == ATTEMPTS {
            let settled =
                verdicts.into_iter().enumerate().map(|(channel, verdict)| match verdict {
                    Verdict::Done(stats) => stats,
                    _ => in_f64(
                        columns
                            .rows(tile, x)
                            .flat_map(|(_, row)| {
                                let of_channel = move |(column, x): (usize, &X)| {
                                    (channel_of(column) == channel).then(|| x.to_f32())
                                };
                                row.iter().enumerate().filter_map(of_channel)
                            })
                            .collect::<Vec<_>>()
                            .into_iter(),
                    ),
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

struct AddRows<'t, X> {
    x: &'t [X],
    columns: Columns,
    tile: &'t ColumnTile,
    sums: &'t mut ColumnSums,
}

impl<X: Element> WithSimd for AddRows<'_, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // From memory one run after the other, where that is what takes the time.
        let at_once =
            if size_of_val(self.x) > LAST_CACHE_BYTES && X::DTYPE == DType::F32 { 1 } else { ROWS };
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
pub(in crate::host) fn by_column(of_channel: &[f32], columns: Columns, fold: usize) -> Vec<f32> {
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
    columns: Columns,
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

/// A pivot for every channel of a tile of columns: the mean of some rows that lie as far apart as
/// they can, as neighbours are often alike, and one channel whose pivot is far off costs all the
/// others a second sum.
fn column_means<X: Element>(x: &[X], columns: Columns, tile: &ColumnTile) -> Vec<f32> {
    let period = tile.columns.len();
    let rows = tile.rows.len().min(GUESS_ROWS);
    let (mut sums, mut scratch) = (vec![0.0; period], vec![0.0; period]);
    for guess in 0..rows {
        let row = tile.rows.start + guess * tile.rows.len() / rows;
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
