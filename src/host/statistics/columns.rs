//! Moments of tiles of columns: every column about a pivot of its channel, the columns of a channel added up.

use pulp::{Arch, Simd, WithSimd};

use super::{ATTEMPTS, Verdict, in_f64, judge};
use crate::dtype::Element;
use crate::host::blocks::read;
use crate::host::convert::widen;
use crate::host::lanes::{ColumnSums, DEPTH};
use crate::host::order::{ColumnTile, Columns, PATCH_COLUMNS};
use crate::stats::ChannelStats;

/// Rows of a tile of which its pivots are the means.
const GUESS_ROWS: usize = 8;

/// The moments of the channels of a tile of columns.
pub(super) fn column_stats<X: Element>(x: &[X], columns: Columns, tile: &ColumnTile) -> Vec<ChannelStats> {
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
        let verdicts = || pivots.iter().zip(&totals).map(|(pivot, totals)| judge(count, *pivot, *totals));
        let again = verdicts().any(|verdict| matches!(verdict, Verdict::Again(_)));
        if !again || attempt == ATTEMPTS {
            let settled = verdicts().enumerate().map(|(channel, verdict)| match verdict {
                Verdict::Done(stats) => stats,
                _ => in_f64(
                    columns
                        .rows(tile, x)
                        .flat_map(|(_, row)| {
                            let of_channel =
                                move |(column, x): (usize, &X)| (channel_of(column) == channel).then(|| x.to_f32());
                            row.iter().enumerate().filter_map(of_channel)
                        })
                        .collect::<Vec<_>>()
                        .into_iter(),
                ),
            });
            return settled.collect();
        }
        let better: Vec<f32> = verdicts()
            .zip(&pivots)
            .map(|(verdict, pivot)| if let Verdict::Again(better) = verdict { better } else { *pivot })
            .collect();
        pivots = better;
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
        let mut scratch = [[0.0; PATCH_COLUMNS]; DEPTH];
        for patch in self.columns.patches(self.tile) {
            let mut rows: [&[f32]; DEPTH] = [&[]; DEPTH];
            let starts = patch.starts().iter().zip(&mut scratch);
            for (row, (start, scratch)) in rows.iter_mut().zip(starts) {
                *row = read(&self.x[*start..], patch.len, scratch);
            }
            self.sums.add_moments(simd, patch.column, patch.len, &rows[..patch.starts().len()]);
        }
    }
}

/// A number per channel as a number per column of `fold` rows.
pub(in crate::host) fn by_column(of_channel: &[f32], columns: Columns, fold: usize) -> Vec<f32> {
    let row: Vec<f32> = of_channel.iter().flat_map(|number| std::iter::repeat_n(*number, columns.repeat)).collect();
    row.repeat(fold)
}

/// Both sums of every channel, over its columns from left to right.
pub(in crate::host) fn totals(sums: &ColumnSums, columns: Columns, channels: usize) -> Vec<[f64; 2]> {
    let mut totals = vec![[0.0; 2]; channels];
    for (k, sums) in sums.sums.iter().enumerate() {
        for row in sums.chunks(channels * columns.repeat) {
            for (total, of_channel) in totals.iter_mut().zip(row.chunks(columns.repeat)) {
                total[k] = of_channel.iter().fold(total[k], |total, sum| total + sum);
            }
        }
    }
    totals
}

/// A pivot for every channel of a tile of columns, of its first rows.
fn column_means<X: Element>(x: &[X], columns: Columns, tile: &ColumnTile) -> Vec<f32> {
    let period = tile.columns.len();
    let mut sums = vec![0.0; columns.channels(&tile.columns).len()];
    let (mut rows, mut scratch) = (0, vec![0.0; period * tile.fold]);
    let all = columns.rows(tile, x).flat_map(|(_, row)| row.chunks(period));
    for row in all.take(GUESS_ROWS) {
        let values = &mut scratch[..row.len()];
        widen(row, values);
        for (sum, values) in sums.iter_mut().zip(values.chunks(columns.repeat)) {
            *sum = values.iter().fold(*sum, |sum, x| sum + f64::from(*x));
        }
        rows += columns.repeat;
    }
    let means = sums.into_iter().map(|sum: f64| (sum / rows.max(1) as f64) as f32);
    means.map(|mean| if mean.is_finite() { mean } else { 0.0 }).collect()
}
