//! How ranks begin: alike, which the first exchange checks, or with the state of one of them.

use syncbn::stats::RunningStats;
use syncbn::{
    BatchNormConfig, Device, Error, SyncBatchNorm,
    config::{Momentum, RunningVariance},
    error::{ExchangeError, GroupError},
};

use crate::common::{Batch, Random, bits, on_threads, process_groups};
use crate::process_groups::{CHANNELS, LONG};

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS)
}

/// Lets rank 2 of four begin differently; all must fail at the first exchange with `what` of rank
/// 2.
fn differs(
    what: &str,
    config_of: impl Fn(BatchNormConfig) -> BatchNormConfig + Sync,
    change: impl Fn(&mut SyncBatchNorm) + Sync,
) {
    let found = on_threads(process_groups(4, LONG), |group| {
        let host = Device::host();
        let own = if group.rank() == 2 { config_of(config()) } else { config() };
        let mut layer = SyncBatchNorm::new(own, [host.clone()]).unwrap().in_group(&group).unwrap();
        if group.rank() == 2 {
            change(&mut layer);
        }
        let before = layer.running_stats();
        let x = host.zeros(&[2, layer.config().num_features]).unwrap();
        let error = pollster::block_on(layer.forward_train(&x)).expect_err("an unequal start");
        assert_eq!(layer.running_stats(), before);
        error
    });
    for error in &found {
        let found = match error {
            Error::Exchange(ExchangeError::Mismatch { rank: 2, what, .. }) => what,
            Error::Exchange(
                ExchangeError::Setting { rank: 2, name, .. }
                | ExchangeError::State { rank: 2, name, .. },
            ) => &**name,
            other => panic!("expected an error of rank 2, found {other}"),
        };
        assert_eq!(found, what, "{error}");
        assert!(error.to_string().starts_with("layer 0, forward, exchange 0: "), "{error}");
    }
    assert!(found.iter().all(|error| *error == found[0]), "{found:?}");
}

#[test]
fn a_rank_that_begins_with_another_state_is_named_at_the_first_exchange() {
    let same = |config| config;
    differs("weight", same, |layer| {
        layer.set_parameters(Some(&[1.0, 1.0, 1.000_001]), None).unwrap()
    });
    differs("bias", same, |layer| layer.set_parameters(None, Some(&[0.0, -0.0, 0.0])).unwrap());
    differs("running_mean", same, |layer| {
        let changed = RunningStats { mean: vec![0.0, 0.0, 0.1], ..RunningStats::new(CHANNELS) };
        layer.set_running_stats(changed).unwrap();
    });
    differs("num_batches_tracked", same, |layer| {
        layer
            .set_running_stats(RunningStats {
                num_batches_tracked: 1,
                ..RunningStats::new(CHANNELS)
            })
            .unwrap();
    });
}

#[test]
fn a_rank_that_is_configured_differently_is_named_at_the_first_exchange() {
    let change = |_: &mut SyncBatchNorm| {};
    differs("eps", |config| config.with_eps(1e-6), change);
    differs("momentum", |config| config.with_momentum(Momentum::NewWeight(0.2)), change);
    differs("momentum", |config| config.with_momentum(Momentum::Cumulative), change);
    differs(
        "running_variance",
        |config| config.with_running_variance(RunningVariance::Biased),
        change,
    );
    differs("weight", |config| config.with_affine(false), change);
    differs("track_running_stats", |config| config.with_track_running_stats(false), change);
    differs("num_features", |_| BatchNormConfig::torch(CHANNELS + 1), change);
}

#[test]
fn a_layer_of_another_name_is_named() {
    let found = on_threads(process_groups(3, LONG), |group| {
        let name = if group.rank() == 1 { "block.1.bn2" } else { "block.1.bn1" };
        let layer = SyncBatchNorm::new(config(), [Device::host()])
            .unwrap()
            .named(name)
            .in_group(&group)
            .unwrap();
        let x = Device::host().zeros(&[2, CHANNELS]).unwrap();
        pollster::block_on(layer.forward_train(&x)).expect_err("another layer").to_string()
    });
    for text in found {
        assert!(
            text.contains("layer name of rank 1 is \"block.1.bn2\", expected \"block.1.bn1\""),
            "{text}"
        );
    }
}

#[test]
fn running_statistics_are_the_same_bits_on_every_rank_after_every_step() {
    for world_size in [2, 3, 5, 8] {
        let found: Vec<Vec<Vec<u32>>> = on_threads(process_groups(world_size, LONG), |group| {
            let host = Device::host();
            let layer =
                SyncBatchNorm::new(config(), [host.clone()]).unwrap().in_group(&group).unwrap();
            let mut random = Random::new(100 + group.rank() as u64);
            let mut step = |step: usize| {
                // Ranks have no samples now and then, all but one of them.
                let values = if (step + group.rank()).is_multiple_of(world_size) {
                    3
                } else {
                    random.below(3)
                };
                let x = Batch::random(&[values, CHANNELS, 1 + random.below(4)], &mut random)
                    .upload(&host);
                pollster::block_on(layer.forward_train(&x)).expect("a step");
                let running = layer.running_stats().unwrap();
                assert_eq!(running.num_batches_tracked, step as u64 + 1);
                bits(&[running.mean, running.var]).concat()
            };
            (0..20).map(&mut step).collect()
        });
        assert!(found.iter().all(|rank| *rank == found[0]));
        assert!(found[0].windows(2).all(|steps| steps[0] != steps[1]), "every step moves them");
    }
}

/// A state with everything that must arrive as it is: NaN of two kinds, infinity, the sign of zero.
fn odd_state(layer: &mut SyncBatchNorm) {
    let weight = [f32::from_bits(0x7fc0_1234), f32::from_bits(0xffc0_0001), -0.0];
    layer.set_parameters(Some(&weight), Some(&[f32::INFINITY, 1e-42, 3.0])).unwrap();
    let running = RunningStats {
        mean: vec![f32::NAN, -1.0, 2.0],
        var: vec![0.5, f32::NAN, 0.25],
        num_batches_tracked: 7,
    };
    layer.set_running_stats(running).unwrap();
}

fn state_bits(layer: &SyncBatchNorm) -> (Vec<Vec<u32>>, Option<u64>) {
    let state = pollster::block_on(layer.state()).unwrap();
    let vectors = [state.weight, state.bias, state.running_mean, state.running_var];
    (bits(&vectors.map(Option::unwrap)), state.num_batches_tracked)
}

#[test]
fn a_broadcast_gives_every_rank_the_bits_of_one_and_the_next_exchange_finds_them_equal() {
    for from in 0..3 {
        let found = on_threads(process_groups(3, LONG), |group| {
            let mut layer =
                SyncBatchNorm::new(config(), [Device::host()]).unwrap().in_group(&group).unwrap();
            let rank = group.rank() as f32;
            layer.set_parameters(Some(&[rank; CHANNELS]), None).unwrap();
            if group.rank() == from {
                odd_state(&mut layer);
            }
            let before = state_bits(&layer);
            pollster::block_on(layer.broadcast_state(from)).expect("a broadcast");
            let after = state_bits(&layer);
            pollster::block_on(layer.forward_train(&Device::host().zeros(&[1, CHANNELS]).unwrap()))
                .expect("a step");
            assert_eq!(layer.running_stats().unwrap().num_batches_tracked, 8);
            (before, after)
        });
        assert!(found.iter().all(|(_, after)| *after == found[from].0), "{found:?}");
    }
}

#[test]
fn a_broadcast_from_a_rank_that_does_not_exist_is_refused_on_every_rank_and_the_group_goes_on() {
    on_threads(process_groups(3, LONG), |group| {
        let mut layer =
            SyncBatchNorm::new(config(), [Device::host()]).unwrap().in_group(&group).unwrap();
        let error = pollster::block_on(layer.broadcast_state(3)).expect_err("no such rank");
        let call = "broadcast_state";
        let expected = GroupError::OutOfRange { call, list: None, rank: 3, world_size: 3 };
        assert_eq!(error, Error::Group(expected));
        assert_eq!(error.to_string(), "broadcast_state: from names rank 3, allowed: 0 to 2");
        pollster::block_on(layer.broadcast_state(0)).expect("the group still works");
    });
}

#[test]
fn ranks_that_broadcast_from_different_ranks_are_told_at_once() {
    for other in [1, 3, usize::MAX] {
        let found = on_threads(process_groups(3, LONG), |group| {
            let mut layer =
                SyncBatchNorm::new(config(), [Device::host()]).unwrap().in_group(&group).unwrap();
            layer.set_parameters(Some(&[group.rank() as f32; CHANNELS]), None).unwrap();
            let before = state_bits(&layer);
            let began = std::time::Instant::now();
            let result = pollster::block_on(layer.broadcast_state(if group.rank() == 1 {
                other
            } else {
                0
            }));
            assert!(
                began.elapsed() < LONG / 2,
                "rank {} waited for {:?}",
                group.rank(),
                began.elapsed()
            );
            assert_eq!(state_bits(&layer), before);
            result
        });
        for result in found {
            let error = result.expect_err("different wishes");
            let Error::Exchange(ExchangeError::Mismatch { rank: 1, what, found, expected, .. }) =
                &error
            else {
                panic!("expected a mismatch of rank 1, found {error}")
            };
            assert_eq!(*what, "`from`", "{error}");
            assert_eq!((&**found, &**expected), (&*other.to_string(), "0"), "{error}");
        }
    }
}
