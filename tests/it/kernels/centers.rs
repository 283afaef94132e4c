//! Mean and inverse deviation of every channel as an application reads them, beside what
//! normalizes.

use approx::abs_diff_eq;
use std::collections::HashMap;

use syncbn::low_level::plan::{DeviceCaps, Merge, Role};
use syncbn::low_level::shaders::RunningForm;

use super::dispatch::run;
use super::sources;

const CHANNELS: usize = 300;
/// Values per channel of each rank.
const COUNTS: [u64; 3] = [0, 24, 8];
/// Half an ulp at most, and the little that is beyond a pair of f32.
const ONE_ROUNDING: f64 = 1.0 + 1e-5;

fn bits(values: impl IntoIterator<Item = f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

fn merge() -> Merge {
    Merge::new(COUNTS.to_vec(), CHANNELS, false, &DeviceCaps::PORTABLE).unwrap()
}

/// Mean and variance of the channels of a rank.
fn moments(rank: usize, channel: usize) -> [f64; 2] {
    match channel {
        // Of the sums as they are rounded: no bit of them may be lost.
        0 => [1e6 + rank as f64, 1.0],
        3 => [7.5, 0.0],
        _ => [(channel * 37 % 101) as f64 / 8.0 - 6.0, (1 + channel % 7) as f64 / 16.0],
    }
}

/// The sums of every rank. Channel 1 has a value that is not finite, the squares of channel 2 leave
/// f32.
fn locals() -> Vec<u32> {
    let stride = merge().slot(1).start as usize / 4;
    let mut words = Vec::new();
    for (rank, count) in COUNTS.into_iter().enumerate() {
        for channel in 0..CHANNELS {
            let [mean, variance] = moments(rank, channel);
            let squares =
                if channel == 2 { f32::INFINITY } else { (variance * count as f64) as f32 };
            // What nobody has written is not read.
            let flag = if count == 0 { f32::NAN } else { f32::from(u8::from(channel == 1)) };
            words.extend(bits([mean as f32, 0.0, squares, flag]));
        }
        words.resize((rank + 1) * stride, 0);
    }
    words
}

/// The channels as `Centering` has them: pivot, rest, inverse deviation, unit.
fn centerings(found: &HashMap<Role, Vec<u32>>) -> Vec<[f32; 4]> {
    let channels = found[&Role::Centering].chunks_exact(4);
    channels.map(|words| [0, 1, 2, 3].map(|field| f32::from_bits(words[field]))).collect()
}

/// What is found is what normalizes, rounded once; NaN in the channels that are not finite, near
/// the definition in the others: the inverse deviation within so many times 2⁻²⁴ of itself.
fn check(
    found: &HashMap<Role, Vec<u32>>,
    not_finite: &[usize],
    roundings: f64,
    expected: impl Fn(usize) -> [f64; 2],
) {
    for (channel, [pivot, rest, inv_std, unit]) in centerings(found).into_iter().enumerate() {
        let [mean, root] =
            [Role::Mean, Role::InvStd].map(|role| f32::from_bits(found[&role][channel]));
        assert_eq!(unit, 1.0);
        if not_finite.contains(&channel) {
            assert!(
                [pivot, rest, inv_std, mean, root].iter().all(|value| value.is_nan()),
                "{channel}: {mean}, {root}"
            );
            continue;
        }
        assert_eq!(
            [mean, root].map(f32::to_bits),
            [pivot + rest, inv_std].map(f32::to_bits),
            "channel {channel}"
        );
        let half_ulps = [8.0, roundings];
        for ((found, expected), half_ulps) in
            [mean, root].into_iter().zip(expected(channel)).zip(half_ulps)
        {
            let allowed = half_ulps * 2f64.powi(-24) * expected.abs();
            assert!(
                abs_diff_eq!(f64::from(found), expected, epsilon = allowed),
                "channel {channel}: {found}, expected {expected}"
            );
        }
    }
}

/// 1/√v, and 0 where v is 0.
fn inverse_root(v: f64) -> f64 {
    if v == 0.0 { 0.0 } else { 1.0 / v.sqrt() }
}

#[test]
fn statistics_of_the_batch_are_written_beside_what_normalizes() {
    for eps in [0.0, 1e-5] {
        let statistics = merge().statistics(0, eps, None);
        let expected = |channel| {
            let weights =
                merge().rank_weights().into_iter().map(|of_rank| f64::from(of_rank.weight));
            let ranks: Vec<(f64, [f64; 2])> =
                weights.zip((0..3).map(|rank| moments(rank, channel))).collect();
            let mean: f64 = ranks.iter().map(|(weight, [mean, _])| weight * mean).sum();
            let square = |(weight, [of_rank, variance]): &(f64, [f64; 2])| {
                weight * (variance + (of_rank - mean).powi(2))
            };
            [mean, inverse_root(ranks.iter().map(square).sum::<f64>() + eps)]
        };
        for source in sources(&statistics.variant.source()) {
            let found = run(&statistics, &source, |role| match role {
                Role::Locals => locals(),
                Role::RankWeights => bits(
                    merge()
                        .rank_weights()
                        .iter()
                        .flat_map(|of_rank| [of_rank.count, of_rank.weight]),
                ),
                _ => vec![0; 4 * CHANNELS],
            });
            // The variance has been rounded a few times.
            check(&found, &[1, 2], 4.0, expected);
            assert!(eps != 0.0 || found[&Role::InvStd][3] == 0, "the deviation of a constant");
        }
    }
}

#[test]
fn running_statistics_are_written_beside_what_normalizes() {
    let statistics = |channel: usize| match channel {
        0 => [f32::NAN, 1.0],
        1 => [f32::INFINITY, 1.0],
        2 => [0.5, f32::NAN],
        3 => [0.5, -1.0],
        4 => [0.5, f32::INFINITY],
        5 => [0.5, 0.0],
        6 => [0.5, 3e-37],
        7 => [0.5, 3e37],
        8..200 => [0.5, 10f32.powi(channel as i32 % 16 - 12) * (1.0 + channel as f32 / 7.0)],
        _ => moments(0, channel).map(|moment| moment as f32),
    };
    for eps in [0.0, 1e-5, 1e-3] {
        let running = merge().running(eps, RunningForm::Entries);
        let expected = |channel| {
            let [mean, variance] = statistics(channel).map(f64::from);
            [mean, inverse_root(variance + eps)]
        };
        for source in sources(&running.variant.source()) {
            let found = run(&running, &source, |role| match role {
                Role::Running => {
                    (0..CHANNELS).flat_map(|c| [bits(statistics(c)), vec![7, 0]].concat()).collect()
                }
                _ => vec![0; 4 * CHANNELS],
            });
            check(&found, &[0, 1, 2, 3], ONE_ROUNDING, expected);
            assert_eq!(found[&Role::InvStd][4], 0, "a deviation without bounds");
            assert!(eps != 0.0 || found[&Role::InvStd][5] == 0, "the deviation of a constant");
        }
    }
}
