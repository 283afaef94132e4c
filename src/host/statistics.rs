//! Moments of every channel: tile by tile about a pivot near the tile's mean, merged in f64 in the order of the tiles.
//!
//! One pass over memory. A pivot is a guess from a tile's first values; where it turns out to lie far from the mean, the
//! tile is summed once more about its mean while it is still in the cache.

mod columns;

use columns::column_stats;
pub(super) use columns::{by_column, totals};

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::blocks::{Block, read};
use super::intrinsics::prefetch;
use super::lanes::Sums;
use super::order::{Order, Planes};
use super::threads::Threads;
use crate::dtype::Element;
use crate::shape::Shape;
use crate::stats::ChannelStats;

/// Values of which a tile's pivot is the mean: within a quarter of a deviation where values are independent.
const GUESS_VALUES: usize = 16;
/// Times that a tile is summed in f32: each brings the pivot about 2²⁰ times nearer to the mean.
const ATTEMPTS: usize = 3;
/// Deviations that a pivot may lie from the mean, squared: Σd² is then at most 5 times m2, and so its rounding.
const FAR: f64 = 4.0;
/// Mean square below which squares in f32 lose digits.
const TINY: f64 = 1e-33;

/// Pivot from which on a value that is not equal to it has a square that f32 holds: it is 2⁻²⁴ of the pivot away at least.
const CONSTANT_FROM: f32 = 1e-12;

/// What is done with a tile's sums.
enum Verdict {
    Done(ChannelStats),
    /// Once more about this pivot.
    Again(f32),
    /// f32 does not hold the squares, or a value is not finite.
    Unfit,
}

fn judge(count: usize, pivot: f32, [sum, squares]: [f64; 2]) -> Verdict {
    let done = || Verdict::Done(ChannelStats::from_sums(count as u64, f64::from(pivot), sum, squares));
    if sum == 0.0 && squares == 0.0 && pivot.abs() >= CONSTANT_FROM {
        return done();
    }
    let offset = sum / count as f64;
    let m2 = squares - sum * offset;
    if !(m2.is_finite() && squares >= TINY * count as f64) {
        return Verdict::Unfit;
    }
    if sum * offset <= FAR * m2 { done() } else { Verdict::Again((f64::from(pivot) + offset) as f32) }
}

/// About the mean of some values, 0 where that is not finite.
fn guess<X: Element>(values: &[X]) -> f32 {
    // Sums side by side, which need not wait for each other.
    let mut sums = [0.0; 8];
    for values in values.chunks(sums.len()) {
        for (sum, x) in sums.iter_mut().zip(values) {
            *sum += x.to_f32();
        }
    }
    let mean = sums.iter().sum::<f32>() / values.len().max(1) as f32;
    if mean.is_finite() { mean } else { 0.0 }
}

/// Moments in f64: about the first value for the mean, about the mean for the squares.
fn in_f64(values: impl Iterator<Item = f32> + Clone) -> ChannelStats {
    let (count, finite) = values.clone().fold((0u64, true), |(n, finite), x| (n + 1, finite && x.is_finite()));
    if !finite {
        return ChannelStats::not_finite(count);
    }
    let Some(first) = values.clone().next() else { return ChannelStats::EMPTY };
    if values.clone().all(|x| x == first) {
        return ChannelStats { count, mean: first.into(), m2: 0.0 };
    }
    let first = f64::from(first);
    let mean = first + values.clone().map(|x| f64::from(x) - first).sum::<f64>() / count as f64;
    let (sum, squares) =
        values.map(|x| f64::from(x) - mean).fold((0.0, 0.0), |(sum, squares), d| (sum + d, squares + d * d));
    ChannelStats::from_sums(count, mean, sum, squares)
}

/// Local statistics of every channel of x.
pub(crate) fn local_stats<X: Element>(x: &[X], shape: &Shape, threads: &Threads) -> Vec<ChannelStats> {
    let mut stats = vec![ChannelStats::EMPTY; shape.channels()];
    if x.is_empty() {
        return stats;
    }
    let bytes = size_of_val(x);
    match Order::of(shape) {
        Order::Planes(planes) => {
            let tiles = planes.tiles().count();
            let per_tile = planes.channels_per_tile();
            let mut parts = vec![ChannelStats::EMPTY; tiles * planes.channels];
            let tasks = (0..planes.channels).step_by(per_tile).flat_map(|first| {
                let channels = first..planes.channels.min(first + per_tile);
                planes.tiles().map(move |tile| (channels.clone(), tile))
            });
            let mut rest = parts.as_mut_slice();
            let tasks = tasks.map(|(channels, tile)| {
                let (part, after) = std::mem::take(&mut rest).split_at_mut(channels.len());
                rest = after;
                (PlaneTile { x, planes, channels, tile }, part)
            });
            threads.for_each(bytes, tasks, |(tile, part)| tile.stats(part));
            // A task after the other, all tiles of some channels before the next channels.
            let mut parts = parts.as_slice();
            for stats in stats.chunks_mut(per_tile) {
                let (of_channels, after) = parts.split_at(tiles * stats.len());
                parts = after;
                of_channels.chunks(stats.len()).for_each(|tile| merge(stats, tile));
            }
        }
        Order::Columns(columns) => {
            let tasks = columns.column_groups().flat_map(|group| columns.tiles(group));
            let mut parts: Vec<Vec<ChannelStats>> = tasks.clone().map(|_| Vec::new()).collect();
            let tasks = tasks.zip(&mut parts);
            threads.for_each(bytes, tasks, |(tile, part)| *part = column_stats(x, columns, &tile));
            let tiles = columns.tiles_per_group();
            for (group, parts) in columns.column_groups().zip(parts.chunks(tiles)) {
                let stats = &mut stats[columns.channels(&group)];
                parts.iter().for_each(|part| merge(stats, part));
            }
        }
    }
    stats
}

fn merge(stats: &mut [ChannelStats], tile: &[ChannelStats]) {
    for (stats, tile) in stats.iter_mut().zip(tile) {
        *stats = stats.merge(*tile);
    }
}

/// One tile of neighbouring channels.
pub(super) struct PlaneTile<'a, X> {
    pub x: &'a [X],
    pub planes: Planes,
    pub channels: Range<usize>,
    pub tile: (Range<usize>, Range<usize>),
}

impl<'a, X: Element> PlaneTile<'a, X> {
    /// Writes the moments of every channel.
    pub fn stats(&self, to: &mut [ChannelStats]) {
        let pivots: Vec<f32> = self.channels.clone().map(|channel| self.first_pivot(channel)).collect();
        let mut totals = vec![[0.0; 2]; pivots.len()];
        let channels = self.channels.clone();
        Arch::new().dispatch(Add { tile: self, channels: channels.clone(), pivots: &pivots, totals: &mut totals });
        for ((channel, to), (pivot, totals)) in channels.zip(to).zip(pivots.iter().zip(totals)) {
            *to = self.settle(channel, *pivot, totals);
        }
    }

    fn run(&self, sample: usize, channel: usize) -> &'a [X] {
        &self.x[self.planes.run(sample, channel)][self.tile.1.clone()]
    }

    fn runs(&self, channel: usize) -> impl Iterator<Item = &'a [X]> + Clone {
        self.tile.0.clone().map(move |sample| self.run(sample, channel))
    }

    fn first_pivot(&self, channel: usize) -> f32 {
        let run = self.run(self.tile.0.start, channel);
        guess(&run[..run.len().min(GUESS_VALUES)])
    }

    /// What the sums about a first pivot say, or better ones.
    fn settle(&self, channel: usize, mut pivot: f32, mut totals: [f64; 2]) -> ChannelStats {
        let count = self.tile.0.len() * self.tile.1.len();
        for attempt in 1..=ATTEMPTS {
            match judge(count, pivot, totals) {
                Verdict::Done(stats) => return stats,
                Verdict::Unfit => break,
                Verdict::Again(_) if attempt == ATTEMPTS => break,
                Verdict::Again(better) => {
                    pivot = better;
                    let (channels, pivots, totals) =
                        (channel..channel + 1, &[pivot], std::slice::from_mut(&mut totals));
                    Arch::new().dispatch(Add { tile: self, channels, pivots, totals });
                }
            }
        }
        in_f64(self.runs(channel).flatten().map(|x| x.to_f32()))
    }
}

/// The sums of some of a tile's channels, each about its pivot.
struct Add<'t, 'a, X> {
    tile: &'t PlaneTile<'a, X>,
    channels: Range<usize>,
    pivots: &'t [f32],
    totals: &'t mut [[f64; 2]],
}

impl<X: Element> WithSimd for Add<'_, '_, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let PlaneTile { x, planes, tile, .. } = self.tile;
        let (first, mut scratch) = (self.channels.start, Block::ZERO);
        let mut sums = vec![Sums::ZERO; self.totals.len()];
        for piece in planes.pieces(tile, &self.channels) {
            let values = read(&x[piece.at..], piece.values(), &mut scratch.0);
            for (k, channel) in piece.channels.enumerate() {
                let (pivot, sums) = (self.pivots[channel - first], &mut sums[channel - first]);
                if let Some(ahead) = piece.ahead {
                    prefetch(&x[ahead + k * piece.len..][..piece.len]);
                }
                sums.add_moments(simd, &values[k * piece.len..], piece.len, pivot);
            }
        }
        for (totals, sums) in self.totals.iter_mut().zip(sums) {
            *totals = sums.totals();
        }
    }
}
