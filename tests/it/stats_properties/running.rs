//! What comes after merging: the inverse deviation that is broadcast, and the running statistics.

use proptest::collection::vec;
use proptest::prelude::*;

use pollster::block_on;
use syncbn::config::{Momentum, RunningVariance};
use syncbn::stats::{GlobalStatistics, LocalStatistics, Moments, RunningStats};
use syncbn::{BatchNormConfig, Device, SyncBatchNorm};

use super::batch::{U, same_bits};
use super::{check, near};

/// Unit roundoff of f32.
const U32: f64 = f32::EPSILON as f64 / 2.0;

fn channel(count: u64, mean: f64, m2: f64) -> Moments {
    Moments { count, mean, m2 }
}

#[test]
fn inv_std_times_itself_times_variance_and_eps_is_one() {
    // Roundings: var + eps, root, quotient (the last two counted twice by the square), and three
    // here: at most 8u.
    check((1u64..1 << 40, 1e-30..1e30f64, 1e-12..1.0f64), |(count, m2, eps)| {
        let global = GlobalStatistics::new([channel(count, 0.5, m2)]);
        let inv_std = global.inv_std(eps)[0];
        near("inv_std²·(var + eps)", inv_std * inv_std * (m2 / count as f64 + eps), 1.0, 8.0 * U)?;
        prop_assert_eq!(global.count(), count);
        Ok(())
    });
}

#[test]
fn inv_std_is_zero_where_variance_and_eps_are() {
    let global = GlobalStatistics::new([channel(7, 3.0, 0.0), Moments::EMPTY]);
    assert_eq!(global.inv_std(0.0), [0.0, 0.0]);
    assert_eq!(GlobalStatistics::new([channel(7, 3.0, 0.0)]).inv_std(0.25), [2.0]);
}

#[test]
fn a_nan_channel_stays_nan_and_leaves_the_others_alone() {
    let global = GlobalStatistics::new([channel(4, f64::NAN, f64::NAN), channel(4, 1.0, 4.0)]);
    assert!(global.channels()[0].mean.is_nan() && global.inv_std(0.0)[0].is_nan());
    assert_eq!((global.channels()[1], global.inv_std(0.0)[1]), (channel(4, 1.0, 4.0), 1.0));
}

/// The running statistics of a layer that starts with `old` and synchronizes these batches, one
/// after the other.
fn follow(
    old: RunningStats,
    batches: &[Vec<Moments>],
    momentum: Momentum,
    variance: RunningVariance,
) -> RunningStats {
    let config = BatchNormConfig::torch(old.mean.len())
        .with_momentum(momentum)
        .with_running_variance(variance);
    let mut layer = SyncBatchNorm::new(config, [Device::host()]).unwrap();
    layer.set_running_stats(old).unwrap();
    for batch in batches {
        let local = LocalStatistics::of_rank(batch.iter().copied());
        let global = block_on(layer.synchronize(local)).unwrap();
        assert!(
            global.channels().iter().zip(batch).all(|(global, batch)| same_bits(global, batch))
        );
    }
    layer.running_stats().unwrap()
}

/// One step on a state of one channel.
fn step(
    old: (f32, f32),
    batch: Moments,
    momentum: Momentum,
    variance: RunningVariance,
) -> RunningStats {
    let running = RunningStats { mean: vec![old.0], var: vec![old.1], num_batches_tracked: 0 };
    follow(running, &[vec![batch]], momentum, variance)
}

/// Old state, batch of at least two values, weight of the new batch.
fn steps() -> impl Strategy<Value = ((f32, f32), Moments, f64)> {
    let old = (-1e6f32..1e6, 0f32..1e6);
    let batch = (2u64..1 << 40, -1e6..1e6f64, 0.0..1e12f64);
    (
        old,
        batch.prop_map(|(count, mean, var)| channel(count, mean, var * count as f64)),
        0.0..=1.0f64,
    )
}

fn variance_of(batch: &Moments, variance: RunningVariance) -> f64 {
    match variance {
        RunningVariance::Unbiased => batch.m2 / (batch.count - 1) as f64,
        RunningVariance::Biased => batch.m2 / batch.count as f64,
    }
}

const VARIANCES: [RunningVariance; 2] = [RunningVariance::Unbiased, RunningVariance::Biased];

/// Rounding to f32 once, 2⁻¹⁵⁰ for subnormal results, and a few roundings in f64 of the two terms
/// before.
fn f32_bound(result: f64, old: f32, batch: f64) -> f64 {
    U32 * result.abs() + 2f64.powi(-150) + 8.0 * U * (f64::from(old).abs() + batch.abs())
}

#[test]
fn the_running_statistics_move_by_the_weight_of_the_new_batch() {
    check(steps(), |(old, batch, f)| {
        for variance in VARIANCES {
            let running = step(old, batch, Momentum::NewWeight(f), variance);
            let var = variance_of(&batch, variance);
            for (what, old, new, found) in
                [("mean", old.0, batch.mean, running.mean[0]), ("var", old.1, var, running.var[0])]
            {
                let expected = (1.0 - f) * f64::from(old) + f * new;
                near(what, f64::from(found), expected, f32_bound(expected, old, new))?;
            }
            prop_assert_eq!(running.num_batches_tracked, 1);
        }
        Ok(())
    });
}

#[test]
fn decay_is_one_minus_the_new_weight() {
    // 1 − (1 − f) is off by at most u, so both results round to f32 from numbers 2u·(|old| + |new|)
    // apart: twice the bound.
    check(steps(), |(old, batch, f)| {
        let a = step(old, batch, Momentum::NewWeight(f), RunningVariance::Unbiased);
        let b = step(old, batch, Momentum::Decay(1.0 - f), RunningVariance::Unbiased);
        let bound = |found: f32, old: f32, new: f64| 2.0 * f32_bound(f64::from(found), old, new);
        near("mean", b.mean[0].into(), a.mean[0].into(), bound(a.mean[0], old.0, batch.mean))?;
        let var = batch.var_unbiased();
        near("var", b.var[0].into(), a.var[0].into(), bound(a.var[0], old.1, var))
    });
}

#[test]
fn cumulative_is_the_plain_average_over_all_steps() {
    // Step t keeps (1 − 1/t) of the error and rounds once more by c = 2⁻²⁴·M, M the largest
    // magnitude: e_t·t = e_{t−1}·(t − 1) + c·t, so e_t = c·(t + 1)/2. One c more for the arithmetic
    // in f64 and here.
    check(vec(steps(), 1..40), |steps| {
        for variance in VARIANCES {
            let batches: Vec<_> = steps.iter().map(|(_, batch, _)| vec![*batch]).collect();
            let running = follow(RunningStats::new(1), &batches, Momentum::Cumulative, variance);
            let means: Vec<f64> = steps.iter().map(|(_, batch, _)| batch.mean).collect();
            let vars: Vec<f64> =
                steps.iter().map(|(_, batch, _)| variance_of(batch, variance)).collect();
            let t = steps.len() as f64;
            for (what, found, seen) in
                [("mean", running.mean[0], means), ("var", running.var[0], vars)]
            {
                let largest = seen.iter().fold(0f64, |m, v| m.max(v.abs()));
                let average = seen.iter().sum::<f64>() / t;
                near(what, found.into(), average, U32 * largest * ((t + 1.0) / 2.0 + 1.0))?;
            }
            prop_assert_eq!(running.num_batches_tracked, steps.len() as u64);
        }
        Ok(())
    });
}

#[test]
fn weight_one_takes_the_batch_and_weight_zero_keeps_the_state_even_beside_nan() {
    let nan = channel(3, f64::NAN, f64::NAN);
    let batch = channel(3, 1.5, 4.0);
    for variance in VARIANCES {
        let kept = step((2.0, 3.0), nan, Momentum::NewWeight(0.0), variance);
        assert_eq!((kept.mean[0], kept.var[0], kept.num_batches_tracked), (2.0, 3.0, 1));
        let taken = step((f32::NAN, f32::NAN), batch, Momentum::Decay(0.0), variance);
        assert_eq!((taken.mean[0], taken.var[0]), (1.5, variance_of(&batch, variance) as f32));
    }
}

#[test]
fn an_empty_group_leaves_the_whole_state_untouched() {
    for momentum in [
        Momentum::NewWeight(0.1),
        Momentum::NewWeight(1.0),
        Momentum::Decay(0.9),
        Momentum::Cumulative,
    ] {
        for variance in VARIANCES {
            let before =
                RunningStats { mean: vec![1.0, -2.0], var: vec![3.0, 4.0], num_batches_tracked: 5 };
            let after = follow(before.clone(), &[vec![Moments::EMPTY; 2]], momentum, variance);
            assert_eq!(after, before, "{momentum:?}, {variance:?}");
        }
    }
}

#[test]
fn a_nan_channel_in_the_state_stays_in_its_channel() {
    let batch = vec![channel(4, f64::NAN, f64::NAN), channel(4, 1.0, 3.0)];
    let running =
        follow(RunningStats::new(2), &[batch], Momentum::NewWeight(0.5), RunningVariance::Unbiased);
    assert!(running.mean[0].is_nan() && running.var[0].is_nan());
    assert_eq!((running.mean[1], running.var[1]), (0.5, 1.0));
}
