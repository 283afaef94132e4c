//! Moments (count, mean, m2) of every channel: tile by tile about a pivot near the tile's mean,
//! merged in f64 in the order of the tiles by the formula of Chan et al.
//!
//! One pass over memory, as Welford's update has it, without its division per value. A pivot is a
//! guess from a tile's first values. If it turns out to lie far from the mean, the tile is summed
//! once more about a better pivot while it is still in the cache.

mod columns;

use columns::column_stats;
pub(super) use columns::{LAST_CACHE_BYTES, by_column, totals};

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::block_io::{Block, read};
use super::intrinsics::prefetch;
use super::reduce::Reduction;
use super::simd::Sums;
use super::threads::Threads;
use super::traversal::{ColumnTile, PlaneTile, Planes, Traversal};
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

/// The judgement of a channel's sums over a tile.
enum Verdict {
    Done(Moments),
    /// Once more about this pivot.
    Again(f32),
    /// f32 does not hold the squares, or a value is not finite.
    Unfit,
}

/// Judges sums about a pivot: Σ(x − pivot) and Σ(x − pivot)² of `count` values.
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
    // Eight accumulators, whose additions need not wait for each other.
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
    let mut count = 0u64;
    let mut is_finite = true;
    for x in values.clone() {
        count += 1;
        is_finite &= x.is_finite();
    }
    if !is_finite {
        return Moments::not_finite(count);
    }
    let Some(first) = values.clone().next() else { return Moments::EMPTY };
    if values.clone().all(|x| x == first) {
        return Moments { count, mean: first.into(), m2: 0.0 };
    }
    let first = f64::from(first);
    let mean = first + values.clone().map(|x| f64::from(x) - first).sum::<f64>() / count as f64;
    let mut sum = 0.0;
    let mut squares = 0.0;
    for x in values {
        let d = f64::from(x) - mean;
        sum += d;
        squares += d * d;
    }
    Moments::from_sums(count, mean, sum, squares)
}

/// Local statistics of every channel of x.
pub(crate) fn local_stats<X: Element>(x: &[X], shape: &Shape, threads: &Threads) -> Vec<Moments> {
    if shape.values_per_channel() == 0 {
        return vec![Moments::EMPTY; shape.channels()];
    }
    let reduction = Reduction {
        traversal: Traversal::of(shape),
        channels: shape.channels(),
        bytes: size_of_val(x),
        empty: Moments::EMPTY,
        threads,
    };
    let of_planes = |planes, channels, tile, part: &mut [Moments]| {
        StatsTile { x, planes, channels, tile }.stats(part)
    };
    let of_columns = |columns, tile: &ColumnTile| column_stats(x, columns, tile);
    reduction.reduce(of_planes, of_columns, merge)
}

fn merge(stats: &mut [Moments], tile: &[Moments]) {
    for (stats, tile) in stats.iter_mut().zip(tile) {
        *stats = stats.merge(*tile);
    }
}

/// One tile of neighbouring channels, of planes.
pub(super) struct StatsTile<'a, X> {
    pub x: &'a [X],
    pub planes: Planes<'a>,
    pub channels: Range<usize>,
    pub tile: PlaneTile,
}

impl<'a, X: Element> StatsTile<'a, X> {
    /// Writes the moments of every channel.
    pub fn stats(&self, to: &mut [Moments]) {
        let pivots: Vec<f32> =
            self.channels.clone().map(|channel| self.first_pivot(channel)).collect();
        let mut totals = vec![[0.0; 2]; pivots.len()];
        let channels = self.channels.clone();
        Arch::new().dispatch(PlaneStatsKernel {
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
        let positions = self.planes.counted(sample, &self.tile.positions);
        &self.x[self.planes.run(sample, channel)][positions]
    }

    fn runs(&self, channel: usize) -> impl Iterator<Item = &'a [X]> + Clone {
        self.tile.samples.clone().map(move |sample| self.run(sample, channel))
    }

    fn first_pivot(&self, channel: usize) -> f32 {
        // Of the first sample that has a value.
        let run = self.runs(channel).find(|run| !run.is_empty()).unwrap_or_default();
        guess(&run[..run.len().min(GUESS_VALUES)])
    }

    /// The moments of a channel from its sums about a first pivot, or about better ones.
    fn settle(&self, channel: usize, mut pivot: f32, mut totals: [f64; 2]) -> Moments {
        let count = self.planes.count(&self.tile);
        for attempt in 1..=ATTEMPTS {
            match judge(count, pivot, totals) {
                Verdict::Done(stats) => return stats,
                Verdict::Unfit => break,
                Verdict::Again(_) if attempt == ATTEMPTS => break,
                Verdict::Again(better) => {
                    pivot = better;
                    Arch::new().dispatch(PlaneStatsKernel {
                        tile: self,
                        channels: channel..channel + 1,
                        pivots: &[pivot],
                        totals: std::slice::from_mut(&mut totals),
                    });
                }
            }
        }
        in_f64(self.runs(channel).flatten().map(|x| x.to_f32()))
    }
}

/// The sums of some of a tile's channels, each about its pivot.
///
/// ```text
/// for piece of at most 1024 values of the tile, sample by sample:
///     x ← the piece as f32                  where it lies, or widened into a block
///     for channel in the piece:
///         prefetch the channel's values in the next sample, if runs are short
///         sums[channel] += Σd, Σd²          d = x − pivot[channel], see `Sums`
/// totals ← sums over their lanes, in f64
/// ```
///
/// 1. Memory-bound: with AVX-512 a core sums eight values a cycle, and from memory it reads about
///    one. Everything here serves to keep loads in flight.
/// 2. If L is short, neighbouring channels are summed side by side, sample by sample, so that
///    memory is read in runs of many channels. Their sums stay in the first caches.
/// 3. The prefetch asks for the run of the next sample, which lies C·L values further: in another
///    page, where no hardware prefetcher follows, and often a TLB miss away. Runs of more than 8192
///    values need none.
/// 4. f16 and bf16 are widened block by block, and the block is still in the first cache when it is
///    summed.
struct PlaneStatsKernel<'t, 'a, X> {
    tile: &'t StatsTile<'a, X>,
    channels: Range<usize>,
    pivots: &'t [f32],
    totals: &'t mut [[f64; 2]],
}

impl<X: Element> WithSimd for PlaneStatsKernel<'_, '_, X> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let StatsTile { x, planes, tile, .. } = self.tile;
        let first = self.channels.start;
        let mut scratch = Block::ZERO;
        let mut sums = vec![Sums::ZERO; self.totals.len()];
        for piece in planes.pieces(tile, &self.channels) {
            let values = read(&x[piece.at..], piece.values(), &mut scratch.0);
            for (k, channel) in piece.channels.enumerate() {
                let pivot = self.pivots[channel - first];
                let sums = &mut sums[channel - first];
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
