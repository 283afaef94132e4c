//! Moments of every channel: tile by tile about a pivot near the tile's mean, merged in f64 in the
//! order of the tiles.
//!
//! One pass over memory. A pivot is a guess from a tile's first values; where it turns out to lie
//! far from the mean, the tile is summed once more about its mean while it is still in the cache.

mod columns;

use columns::column_stats;
pub(super) use columns::{by_column, totals};

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::block_io::{Block, read};
use super::intrinsics::prefetch;
use super::reduce::{PlanePart, reduce};
use super::simd::Sums;
use super::threads::Threads;
use super::traversal::{ColumnTile, Planes, Traversal};
use crate::dtype::Element;
use crate::shape::Shape;
use crate::stats::Moments;

/// Values of which a tile's pivot is the mean: within a quarter of a deviation where values are
/// independent.
const GUESS_VALUES: usize = 16;
/// Times that a tile is summed in f32: each brings the pivot about 2²⁰ times nearer to the mean.
const ATTEMPTS: usize = 3;
/// Deviations that a pivot may lie from the mean, squared: Σd² is then at most 5 times m2, and so
/// its rounding.
const FAR: f64 = 4.0;
/// Mean square below which squares in f32 lose digits.
const TINY: f64 = 1e-33;

/// Pivot from which on a value that is not equal to it has a square that f32 holds: it is 2⁻²⁴ of
/// the pivot away at least.
const CONSTANT_FROM: f32 = 1e-12;

/// What is done with a tile's sums.
enum Verdict {
    Done(Moments),
    /// Once more about this pivot.
    Again(f32),
    /// f32 does not hold the squares, or a value is not finite.
    Unfit,
}

fn judge(count: usize, pivot: f32, [sum, squares]: [f64; 2]) -> Verdict {
    let done = || Verdict::Done(Moments::from_sums(count as u64, f64::from(pivot), sum, squares));
    if sum == 0.0 && squares == 0.0 && pivot.abs() >= CONSTANT_FROM {
        return done();
    }
    let offset = sum / count as f64;
    let m2 = squares - sum * offset;
    if !(m2.is_finite() && squares >= TINY * count as f64) {
        return Verdict::Unfit;
    }
    if sum * offset <= FAR * m2 {
        done()
    } else {
        Verdict::Again((f64::from(pivot) + offset) as f32)
    }
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
fn in_f64(values: impl Iterator<Item = f32> + Clone) -> Moments {
    let (count, finite) =
        values.clone().fold((0u64, true), |(n, finite), x| (n + 1, finite && x.is_finite()));
    if !finite {
        return Moments::not_finite(count);
    }
    let Some(first) = values.clone().next() else { return Moments::EMPTY };
    if values.clone().all(|x| x == first) {
        return Moments { count, mean: first.into(), m2: 0.0 };
    }
    let first = f64::from(first);
    let mean = first + values.clone().map(|x| f64::from(x) - first).sum::<f64>() / count as f64;
    let (sum, squares) = values
        .map(|x| f64::from(x) - mean)
        .fold((0.0, 0.0), |(sum, squares), d| (sum + d, squares + d * d));
    Moments::from_sums(count, mean, sum, squares)
}

/// Local statistics of every channel of x.
pub(crate) fn local_stats<X: Element>(x: &[X], shape: &Shape, threads: &Threads) -> Vec<Moments> {
    if x.is_empty() {
        return vec![Moments::EMPTY; shape.channels()];
    }
    let of_planes = |planes, channels, tile, part: &mut [Moments]| {
        PlaneTile { x, planes, channels, tile }.stats(part)
    };
    let of_columns = |columns, tile: &ColumnTile| column_stats(x, columns, tile);
    let all = (Traversal::of(shape), shape.channels(), size_of_val(x));
    reduce(all, Moments::EMPTY, threads, of_planes, of_columns, merge)
}

fn merge(stats: &mut [Moments], tile: &[Moments]) {
    for (stats, tile) in stats.iter_mut().zip(tile) {
        *stats = stats.merge(*tile);
    }
}

/// One tile of neighbouring channels.
pub(super) struct PlaneTile<'a, X> {
    pub x: &'a [X],
    pub planes: Planes,
    pub channels: Range<usize>,
    pub tile: PlanePart,
}

impl<'a, X: Element> PlaneTile<'a, X> {
    /// Writes the moments of every channel.
    pub fn stats(&self, to: &mut [Moments]) {
        let pivots: Vec<f32> =
            self.channels.clone().map(|channel| self.first_pivot(channel)).collect();
        let mut totals = vec![[0.0; 2]; pivots.len()];
        let channels = self.channels.clone();
        Arch::new().dispatch(Add {
            tile: self,
            channels: channels.clone(),
            pivots: &pivots,
            totals: &mut totals,
        });
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
    fn settle(&self, channel: usize, mut pivot: f32, mut totals: [f64; 2]) -> Moments {
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
                if let Some(next) = piece.prefetch {
                    prefetch(&x[next + k * piece.len..][..piece.len]);
                }
                sums.add_moments(simd, &values[k * piece.len..], piece.len, pivot);
            }
        }
        for (totals, sums) in self.totals.iter_mut().zip(sums) {
            *totals = sums.totals();
        }
    }
}
