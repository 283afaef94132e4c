//! Sums that leave the range of f32: a kernel squares what it sums, so that values beyond 10¹⁸
//! overflow and deviations below 10⁻¹⁹ vanish. The host sees either in the sums of a channel and
//! has them taken again in other units, which is exact.

use super::sums::{Job, Sums, Taker};
use crate::error::Error;
use crate::stats::Moments;

/// 2⁻⁹⁶: the largest values become 2³², whose squares may be summed 2⁶³ times; where squares
/// overflow as they are, the largest deviation is above 2⁴⁸ and becomes more than 2⁻⁴⁸.
const LARGE: f32 = f32::from_bits((127 - 96) << 23);
/// 2⁸⁰: deviations of 2⁻¹²⁶ become 2⁻⁴⁶, and what a device flushes of their squares is below 2⁻³⁴
/// of them. Of up to 2³² values with a mean square below 2⁻⁹⁰ none deviates by more than 2⁻²⁹,
/// which becomes 2⁵¹.
const SMALL: f32 = f32::from_bits((127 + 80) << 23);
/// Mean squares from 2⁻⁹⁰ on lose nothing to terms below 2⁻¹²⁶. Below, eps decides alone unless it
/// is smaller still.
const SMALL_SQUARE: f64 = 1.0 / (1u128 << 90) as f64;

/// Which sums of a channel are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Range {
    Kept,
    Beyond,
    Below,
}

/// Of `count` values with [pivot, Σ(x − pivot), Σ(x − pivot)², flag].
fn range_of([pivot, sum, squares, flag]: [f32; 4], count: u64, eps: f64) -> Range {
    if flag != 0.0 {
        return Range::Kept;
    }
    if !(pivot.is_finite() && sum.is_finite() && squares.is_finite()) {
        return Range::Beyond;
    }
    // Rounding of a variance of this size moves √(var + eps) by less than half an ulp where eps is
    // 2²⁴ times as large.
    let is_small =
        f64::from(squares) < count as f64 * SMALL_SQUARE && eps < SMALL_SQUARE * f64::from(1 << 24);
    if is_small { Range::Below } else { Range::Kept }
}

/// Statistics of channels of `count` values from their sums in units of 1/`unit`.
fn channel_stats([pivot, sum, squares, flag]: [f32; 4], count: u64, unit: f32) -> Moments {
    if flag != 0.0 {
        return Moments::not_finite(count);
    }
    let [pivot, sum, squares, unit] = [pivot, sum, squares, unit].map(f64::from);
    Moments::from_sums(count, pivot / unit, sum / unit, squares / (unit * unit))
}

/// Statistics of channels of `count` values from their sums, those out of range taken again.
pub(super) async fn statistics(
    sums: Sums,
    count: u64,
    eps: f64,
    taker: &Taker,
    job: &Job,
) -> Result<Vec<Moments>, Error> {
    let ranges: Vec<Range> = sums.iter().map(|&sums| range_of(sums, count, eps)).collect();
    let mut statistics: Vec<Moments> =
        sums.into_iter().map(|sums| channel_stats(sums, count, 1.0)).collect();
    for (range, unit) in [(Range::Beyond, LARGE), (Range::Below, SMALL)] {
        if !ranges.contains(&range) {
            continue;
        }
        let sums = taker.take_in_units(job, unit).await?;
        for ((statistics, _), sums) in
            statistics.iter_mut().zip(&ranges).zip(sums).filter(|((_, of), _)| **of == range)
        {
            // A large constant overflows in units for small deviations, and was right as it was.
            let again = channel_stats(sums, count, unit);
            if range == Range::Beyond || again.m2.is_finite() {
                *statistics = again;
            }
        }
    }
    Ok(statistics)
}

/// Gradient sums [Σg, Σ g·(x − pivot), flag of g, flag of x] in f64, those that overflowed taken
/// again.
pub(super) async fn gradient_sums(
    sums: Sums,
    taker: &Taker,
    job: &Job,
) -> Result<Vec<[f64; 4]>, Error> {
    let is_beyond = |[sum_dy, sum_dy_x, g_flag, x_flag]: [f32; 4]| {
        g_flag == 0.0 && x_flag == 0.0 && !(sum_dy.is_finite() && sum_dy_x.is_finite())
    };
    let beyond: Vec<bool> = sums.iter().map(|&sums| is_beyond(sums)).collect();
    let mut gradient_sums: Vec<[f64; 4]> =
        sums.into_iter().map(|sums| sums.map(f64::from)).collect();
    if beyond.contains(&true) {
        let sums = taker.take_in_units(job, LARGE).await?;
        for ((gradient_sums, _), sums) in
            gradient_sums.iter_mut().zip(&beyond).zip(sums).filter(|((_, is), _)| **is)
        {
            let [sum_dy, sum_dy_x, g_flag, x_flag] = sums.map(f64::from);
            let unit = f64::from(LARGE);
            *gradient_sums = [sum_dy / unit, sum_dy_x / unit, g_flag, x_flag];
        }
    }
    Ok(gradient_sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_taken_again_where_they_overflow_or_where_eps_does_not_hide_that_squares_vanish() {
        let range = |sums, eps| range_of(sums, 4, eps);
        assert_eq!(range([1.0, 0.0, 2.0, 0.0], 0.0), Range::Kept);
        assert_eq!(range([0.0, 0.0, f32::INFINITY, 0.0], 1e-5), Range::Beyond);
        assert_eq!(range([0.0, f32::NAN, 1.0, 0.0], 1e-5), Range::Beyond);
        // A value that is not finite is no overflow.
        assert_eq!(range([0.0, f32::NAN, f32::NAN, 1.0], 0.0), Range::Kept);
        assert_eq!(range([1e-24, 0.0, 0.0, 0.0], 0.0), Range::Below);
        assert_eq!(range([1e-24, 0.0, 0.0, 0.0], 1e-5), Range::Kept);
    }

    #[test]
    fn statistics_are_brought_back_from_their_units() {
        for unit in [1.0, LARGE, SMALL] {
            let found = channel_stats([3.0, 0.5, 7.0, 0.0], 8, unit);
            let by = f64::from(unit);
            assert_eq!(found, Moments { count: 8, mean: 3.0625 / by, m2: 6.96875 / (by * by) });
        }
    }
}
