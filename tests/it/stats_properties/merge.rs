//! The formula by which statistics merge: exactness, identity, poison, and how shift and scale pass
//! through.

use proptest::prelude::*;

use syncbn::low_level::tree::merge_all;
use syncbn::stats::Moments;

use super::batch::{Batch, U, batches, in_place, merge, same_bits, whole};
use super::{Outcome, check, near};

/// The property by which a formula of merging is judged: local statistics merge to those of the
/// whole batch.
pub fn partition_equals_whole(
    batch: &Batch,
    merge: impl Fn(&Moments, &Moments) -> Moments,
) -> Outcome {
    let merged = merge_all(batch.local(), in_place(merge)).unwrap_or(Moments::EMPTY);
    let exact = batch.exact();
    let (mean_bound, m2_bound) = batch.bounds();
    prop_assert_eq!(merged.count, exact.count);
    near("mean", merged.mean, exact.mean, mean_bound)?;
    near("m2", merged.m2, exact.m2, m2_bound)
}

#[test]
fn any_partition_of_a_batch_over_ranks_equals_the_whole() {
    check(batches(), |batch| partition_equals_whole(&batch, merge));
}

#[test]
fn wrong_merge_formulas_are_caught_by_the_partition_property() {
    let uneven = Batch { k: vec![0, 0, 0, 10, 20, 20], exponent: 0, cuts: vec![1, 4] };
    assert!(partition_equals_whole(&uneven, merge).is_ok());
    let mean_without_counts = |a: &Moments, b: &Moments| {
        if a.count == 0 || b.count == 0 {
            return a.merge(*b);
        }
        Moments { mean: (a.mean + b.mean) / 2.0, ..a.merge(*b) }
    };
    let m2_without_delta = |a: &Moments, b: &Moments| Moments { m2: a.m2 + b.m2, ..a.merge(*b) };
    let empty_as_zero = |a: &Moments, b: &Moments| {
        let one = |s: &Moments| Moments { count: s.count.max(1), ..*s };
        one(a).merge(one(b))
    };
    let message = |outcome: Outcome| outcome.unwrap_err().to_string();
    assert!(message(partition_equals_whole(&uneven, mean_without_counts)).contains("mean: found"));
    assert!(message(partition_equals_whole(&uneven, m2_without_delta)).contains("m2: found"));
    let with_empty = Batch { cuts: vec![1, 1, 4], ..uneven };
    assert!(partition_equals_whole(&with_empty, merge).is_ok());
    assert!(partition_equals_whole(&with_empty, empty_as_zero).is_err());
}

#[test]
fn an_error_of_twice_the_bound_is_caught() {
    let batch =
        Batch { k: (0..100).map(|k| k * k % 37).collect(), exponent: 0, cuts: vec![10, 40, 41] };
    let (mean_bound, m2_bound) = batch.bounds();
    assert!(mean_bound > 0.0 && m2_bound > 0.0);
    let last_of_all = |s: &Moments| s.count == 100;
    let off = |mean: f64, m2: f64| {
        move |a: &Moments, b: &Moments| {
            let s = a.merge(*b);
            if last_of_all(&s) { Moments { mean: s.mean + mean, m2: s.m2 + m2, ..s } } else { s }
        }
    };
    assert!(partition_equals_whole(&batch, off(0.0, 0.0)).is_ok());
    assert!(partition_equals_whole(&batch, off(2.0 * mean_bound, 0.0)).is_err());
    assert!(partition_equals_whole(&batch, off(0.0, 2.0 * m2_bound)).is_err());
}

#[test]
fn the_empty_statistics_are_the_exact_identity_on_both_sides() {
    check(batches(), |batch| {
        let stats = Moments::from_values(batch.values());
        prop_assert!(same_bits(&stats.merge(Moments::EMPTY), &stats));
        prop_assert!(same_bits(&Moments::EMPTY.merge(stats), &stats));
        Ok(())
    });
    assert_eq!(Moments::EMPTY.merge(Moments::EMPTY), Moments::EMPTY);
    assert_eq!(Moments::from_values([]), Moments::EMPTY);
}

#[test]
fn a_constant_batch_has_its_value_as_mean_and_exactly_no_m2() {
    check((batches(), -1e30..1e30f64), |(batch, value)| {
        let ranks =
            batch.ranks().into_iter().map(|rank| Moments::from_values(rank.iter().map(|_| value)));
        let merged = whole(&ranks.collect::<Vec<_>>());
        let mean = if batch.k.is_empty() { 0.0 } else { value };
        prop_assert_eq!((merged.mean, merged.m2), (mean, 0.0));
        Ok(())
    });
}

#[test]
fn a_value_that_is_not_finite_makes_the_merged_channel_nan_whatever_the_partition() {
    let poison = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)];
    check((batches(), any::<prop::sample::Index>(), poison), |(batch, at, poison)| {
        let mut ranks = batch.ranks();
        let rank = at.index(ranks.len());
        ranks[rank].push(poison);
        let local: Vec<_> = ranks.into_iter().map(Moments::from_values).collect();
        let merged = whole(&local);
        prop_assert!(merged.mean.is_nan() && merged.m2.is_nan(), "{merged:?}");
        prop_assert_eq!(merged.count, batch.k.len() as u64 + 1);
        Ok(())
    });
}

#[test]
fn a_shift_moves_the_mean_and_keeps_m2() {
    // Both sides are within their own bounds of exact values that differ by the shift alone; adding
    // it rounds once.
    check((batches(), -(1i64 << 40)..(1 << 40)), |(batch, shift)| {
        let shifted = Batch { k: batch.k.iter().map(|k| k + shift).collect(), ..batch.clone() };
        let a = whole(&batch.local());
        let b = whole(&shifted.local());
        let (mean_a, m2_a) = batch.bounds();
        let (mean_b, m2_b) = shifted.bounds();
        let by = if batch.k.is_empty() { 0.0 } else { shift as f64 * 2f64.powi(batch.exponent) };
        near("mean", b.mean, a.mean + by, mean_a + mean_b + U * (a.mean + by).abs())?;
        near("m2", b.m2, a.m2, m2_a + m2_b)
    });
}

#[test]
fn a_factor_multiplies_the_mean_and_its_square_multiplies_m2() {
    // x·f rounds by u·X·f. That moves the mean as much, and m2 by up to 2·n·D·f times that. Both
    // sides then lie within their bounds, those of the unscaled side times f and f².
    check((batches(), -1e3..1e3f64), |(batch, factor)| {
        let scale = |x: f64| x * factor;
        let ranks = batch.ranks().into_iter();
        let scaled: Vec<_> =
            ranks.map(|rank| Moments::from_values(rank.into_iter().map(scale))).collect();
        let a = whole(&batch.local());
        let b = whole(&scaled);
        let values = batch.values();
        let x = values.iter().fold(0.0f64, |x, v| x.max(v.abs()));
        let d = values.iter().fold(0.0f64, |d, v| d.max((v - values[0]).abs())) * 2.0;
        let (mean_bound, m2_bound) = batch.bounds();
        let f = factor.abs();
        let n = values.len() as f64;
        let rounding = 2.0 * U * x * f;
        near("mean", b.mean, a.mean * factor, 3.0 * mean_bound * f + rounding)?;
        // The rounded values' own D, and with it their bound, is larger by that rounding: hence its
        // square.
        let m2_rounding = 2.0 * n * d * f * rounding + n * rounding * rounding;
        near("m2", b.m2, a.m2 * factor * factor, 3.0 * m2_bound * f * f + m2_rounding)
    });
}

#[test]
fn a_power_of_two_scales_without_any_rounding() {
    check((batches(), -20..20i32), |(batch, power)| {
        let scaled = Batch { exponent: batch.exponent + power, ..batch.clone() };
        let a = whole(&batch.local());
        let b = whole(&scaled.local());
        let factor = 2f64.powi(power);
        let expected =
            Moments { count: a.count, mean: a.mean * factor, m2: a.m2 * factor * factor };
        prop_assert!(same_bits(&b, &expected), "{b:?}, expected {expected:?}");
        Ok(())
    });
}

#[test]
fn sums_about_any_pivot_within_the_data_give_the_same_statistics() {
    // A pivot that is one of the values keeps the derivation of the bounds for a single rank.
    check((batches(), any::<prop::sample::Index>()), |(batch, at)| {
        prop_assume!(!batch.k.is_empty());
        let values = batch.values();
        let pivot = values[at.index(values.len())];
        let sum: f64 = values.iter().map(|x| x - pivot).sum();
        let squares = values.iter().map(|x| (x - pivot) * (x - pivot)).sum();
        let stats = Moments::from_sums(values.len() as u64, pivot, sum, squares);
        let exact = batch.exact();
        let (mean_bound, m2_bound) = batch.bounds();
        prop_assert!(stats.m2 >= 0.0);
        near("mean", stats.mean, exact.mean, mean_bound)?;
        near("m2", stats.m2, exact.m2, m2_bound)
    });
}
