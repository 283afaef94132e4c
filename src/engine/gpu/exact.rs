//! Ranges and sums of integers on a GPU. Kernels leave exact sums of integers that are shifted by
//! 2²⁹, so that none has a sign. The host takes the shift out.

use std::time::Duration;

use futures::future::{FutureExt, ready};

use super::Slices;
use super::sums::{Job, Taker};
use crate::engine::{BackwardRank, ForwardRank, GradientIntegers};
use crate::error::Error;
use crate::gpu::{Gpu, Pending};
use crate::plan::{CHANNEL_INTEGERS_BYTES, SumsPlan, Taken};
use crate::stats::{GridParams, IntegerSums, Normalization, ValueRange};

/// 2²⁹, the offset that kernels add to every integer.
const BIAS: i128 = 1 << 29;

/// The integers that a kernel writes for a channel.
type Words = [u32; CHANNEL_INTEGERS_BYTES as usize / 4];

/// The jobs of one rank.
struct Wanted {
    /// One after the other in one submission; none for a rank without values.
    jobs: Vec<Job>,
    channels: usize,
    /// Values per channel.
    count: u64,
}

/// One after the other in one submission, `[rank][job][channel]`.
fn take(taker: &Taker, wanted: &[Wanted]) -> Result<Pending<Vec<Vec<Vec<Words>>>>, Error> {
    let jobs: Vec<&Job> = wanted.iter().flat_map(|wanted| &wanted.jobs).collect();
    let counts: Vec<usize> = wanted.iter().map(|wanted| wanted.jobs.len()).collect();
    if jobs.is_empty() {
        return Ok(ready(Ok(vec![Vec::new(); counts.len()])).boxed());
    }
    let taken = taker.take_bytes(&jobs)?;
    Ok(async move {
        let mut taken = taken.await?.into_iter();
        let words = |bytes: Vec<u8>| {
            let channels = bytes.chunks_exact(CHANNEL_INTEGERS_BYTES as usize);
            channels.map(bytemuck::pod_read_unaligned).collect()
        };
        Ok(counts.iter().map(|&jobs| taken.by_ref().take(jobs).map(words).collect()).collect())
    }
    .boxed())
}

fn ranges_of(
    taker: &Taker,
    wanted: Vec<Wanted>,
    range: fn(u64, Words) -> ValueRange,
) -> Result<Pending<Vec<Vec<ValueRange>>>, Error> {
    let taken = take(taker, &wanted)?;
    Ok(async move {
        let of_rank = |(Wanted { channels, count, .. }, jobs): (Wanted, Vec<Vec<Words>>)| {
            let ends = jobs.into_iter().next();
            ends.map_or_else(
                || vec![ValueRange::EMPTY; channels],
                |ends| ends.into_iter().map(|ends| range(count, ends)).collect(),
            )
        };
        Ok(wanted.into_iter().zip(taken.await?).map(of_rank).collect())
    }
    .boxed())
}

/// The f32 whose bits have a place in the order of all f32.
fn of_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

/// From the keys of both ends, the low one with all bits changed.
fn range_of_x(count: u64, [low, high, ..]: Words) -> ValueRange {
    // Merged, so that zero has its one sign.
    let range = ValueRange { count, low: of_key(!low), high: of_key(high) };
    ValueRange::EMPTY.merge(range)
}

/// From the bits of the largest magnitude.
fn range_of_gradients(count: u64, [_, magnitude, ..]: Words) -> ValueRange {
    let high = f32::from_bits(magnitude);
    ValueRange::EMPTY.merge(ValueRange { count, low: -high, high })
}

/// Σs, Σt and Σs·t of a channel of `count` values from those of s + 2²⁹ and t + 2²⁹.
fn without_bias(count: u64, [a, b, c, d, products @ ..]: Words) -> [i128; 3] {
    let word = |word: u32| i128::from(word);
    let [s, t] = [word(a) | word(b) << 32, word(c) | word(d) << 32];
    let products = products.iter().rev().fold(0, |all, &of| all << 32 | word(of));
    let count = i128::from(count);
    // Where integers mean nothing, as of channels that are not finite, sums may overflow.
    let [s, t] = [s, t].map(|sum| sum.wrapping_sub(count.wrapping_mul(BIAS)));
    let shifts = s.wrapping_add(t).wrapping_mul(BIAS);
    let squares = count.wrapping_mul(BIAS * BIAS);
    [s, t, products.wrapping_sub(shifts).wrapping_sub(squares)]
}

/// The jobs of x for a rank.
fn wanted_of_x(gpu: &Gpu, rank: &ForwardRank<'_>, grids: &[GridParams], taken: &[Taken]) -> Wanted {
    let job = |plan: &SumsPlan, taken: Taken| {
        let slices = Slices::statistics(gpu, rank);
        Job::new(Box::new(plan.taking(taken)), slices, Vec::new()).with_grids(grids.to_vec())
    };
    let jobs = taken.iter().filter_map(|&taken| Some(job(rank.sums.as_deref()?, taken)));
    Wanted {
        jobs: jobs.collect(),
        channels: rank.shape.channels(),
        count: rank.shape.values_per_channel(),
    }
}

/// The job of the gradients of a rank.
fn wanted_of_gradients(
    gpu: &Gpu,
    rank: &BackwardRank<'_>,
    normalization: &Normalization,
    grids: Vec<GridParams>,
    taken: Taken,
) -> Wanted {
    let job = |plan: &SumsPlan| {
        let slices = Slices::gradient_sums(gpu, rank);
        let plan = Box::new(plan.taking(taken));
        Job::new(plan, slices, normalization.centering()).with_grids(grids)
    };
    Wanted {
        jobs: rank.sums.as_deref().map(job).into_iter().collect(),
        channels: rank.shape.channels(),
        count: rank.shape.values_per_channel(),
    }
}

pub(in crate::engine) fn ranges(
    gpu: &Gpu,
    deadline: Duration,
    ranks: Vec<&mut ForwardRank<'_>>,
) -> Result<Pending<Vec<Vec<ValueRange>>>, Error> {
    let taker = Taker { gpu: gpu.clone(), deadline, phase: "local ranges" };
    let wanted = ranks.iter().map(|rank| wanted_of_x(gpu, rank, &[], &[Taken::Range]));
    ranges_of(&taker, wanted.collect(), range_of_x)
}

pub(in crate::engine) fn integers(
    gpu: &Gpu,
    deadline: Duration,
    ranks: Vec<(&mut ForwardRank<'_>, &[GridParams])>,
    rests: bool,
) -> Result<Pending<Vec<Vec<IntegerSums<true>>>>, Error> {
    let taker = Taker { gpu: gpu.clone(), deadline, phase: "local sums of integers" };
    let mut wanted = Vec::new();
    let mut kept = Vec::new();
    for (rank, grids) in &ranks {
        let has_some = grids.iter().any(has_integers);
        let taken: &[Taken] = match (has_some, rests) {
            (false, _) => &[],
            (true, false) => &[Taken::Integers],
            (true, true) => &[Taken::Rests, Taken::SquaresOfRests],
        };
        wanted.push(wanted_of_x(gpu, rank, grids, taken));
        kept.push(grids.iter().map(has_integers).collect());
    }
    sums_of(&taker, wanted, kept, |count, of_jobs| match *of_jobs {
        [integers] => {
            let [sum, _, squares] = without_bias(count, integers);
            [sum, squares]
        }
        [rests, squares] => {
            let [_, sum, products] = without_bias(count, rests);
            let [_, _, squares] = without_bias(count, squares);
            [sum, (products << 25).wrapping_add(squares)]
        }
        _ => [0; 2],
    })
}

/// Whether the integers of a channel are not all 0. The kernels do not read a channel of others.
fn has_integers(grid: &GridParams) -> bool {
    grid.scale != 0.0
}

/// Sums of every channel that is kept, from the integers of its jobs; 0 of others.
fn sums_of<const STATISTICS: bool>(
    taker: &Taker,
    wanted: Vec<Wanted>,
    kept: Vec<Vec<bool>>,
    sums: fn(u64, &[Words]) -> [i128; 2],
) -> Result<Pending<Vec<Vec<IntegerSums<STATISTICS>>>>, Error> {
    let taken = take(taker, &wanted)?;
    Ok(async move {
        let of_rank = |((wanted, kept), jobs): ((Wanted, Vec<bool>), Vec<Vec<Words>>)| {
            let count = wanted.count;
            let channel = |channel: usize| {
                let words: Vec<Words> =
                    jobs.iter().filter_map(|words| words.get(channel).copied()).collect();
                let is_kept = kept.get(channel).is_some_and(|kept| *kept);
                let sums = if is_kept { sums(count, &words) } else { [0; 2] };
                IntegerSums { count, sums }
            };
            (0..wanted.channels).map(channel).collect()
        };
        Ok(wanted.into_iter().zip(kept).zip(taken.await?).map(of_rank).collect())
    }
    .boxed())
}

pub(in crate::engine) fn gradient_ranges(
    gpu: &Gpu,
    deadline: Duration,
    ranks: Vec<(&mut BackwardRank<'_>, &Normalization)>,
) -> Result<Pending<Vec<Vec<ValueRange>>>, Error> {
    let taker = Taker { gpu: gpu.clone(), deadline, phase: "local ranges of gradients" };
    let wanted = ranks.iter().map(|(rank, normalization)| {
        wanted_of_gradients(gpu, rank, normalization, Vec::new(), Taken::Range)
    });
    ranges_of(&taker, wanted.collect(), range_of_gradients)
}

pub(in crate::engine) fn gradient_integers(
    gpu: &Gpu,
    deadline: Duration,
    ranks: Vec<GradientIntegers<'_, '_>>,
) -> Result<Pending<Vec<Vec<IntegerSums<false>>>>, Error> {
    let taker = Taker { gpu: gpu.clone(), deadline, phase: "local gradient sums of integers" };
    let mut wanted = Vec::new();
    let mut kept = Vec::new();
    for GradientIntegers { rank, normalization, of_x, of_g } in &ranks {
        let both = of_x.iter().zip(*of_g).flat_map(|(x, g)| [*x, *g]).collect();
        wanted.push(wanted_of_gradients(gpu, rank, normalization, both, Taken::Integers));
        kept.push(of_g.iter().map(has_integers).collect());
    }
    sums_of(&taker, wanted, kept, |count, of_jobs| match *of_jobs {
        [integers] => {
            let [_, sum, products] = without_bias(count, integers);
            [sum, products]
        }
        _ => [0; 2],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_order_of_the_values_and_show_what_is_not_finite() {
        let key = |value: f32| {
            let bits = value.to_bits();
            if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
        };
        for value in [-f32::MAX, -1.5, -0.0, 0.0, 2.0, f32::MAX] {
            assert_eq!(of_key(key(value)).to_bits(), value.to_bits());
        }
        let range = |low: f32, high: f32| range_of_x(2, [!key(low), key(high), 0, 0, 0, 0, 0, 0]);
        assert_eq!(range(-1.5, 2.0), ValueRange { count: 2, low: -1.5, high: 2.0 });
        for poison in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!range(poison, poison).is_finite(), "{poison}");
        }
        assert!(!range(1.0, f32::INFINITY).is_finite());
        assert!(!range(f32::NEG_INFINITY, 1.0).is_finite());
    }

    #[test]
    fn sums_lose_their_bias_exactly() {
        let values = [[-536_870_880i128, 536_870_880], [-3, 5], [0, 0], [7, -536_870_880]];
        let shifted = values.map(|pair| pair.map(|of| (of + BIAS) as u128));
        let sum = |of: fn(&[u128; 2]) -> u128| shifted.iter().map(of).sum::<u128>();
        let [s, t, products] = [sum(|of| of[0]), sum(|of| of[1]), sum(|of| of[0] * of[1])];
        let word = |of: u128, at: u32| (of >> (32 * at)) as u32;
        let words = [
            word(s, 0),
            word(s, 1),
            word(t, 0),
            word(t, 1),
            word(products, 0),
            word(products, 1),
            word(products, 2),
            word(products, 3),
        ];
        let expected =
            values.iter().fold([0; 3], |[s, t, products], [a, b]| [s + a, t + b, products + a * b]);
        assert_eq!(without_bias(4, words), expected);
    }
}
