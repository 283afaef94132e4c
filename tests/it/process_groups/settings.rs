//! Settings that change on living layers: alike on all ranks they go on, on one rank alone all are
//! notified.

use pollster::block_on;
use syncbn::config::{AffineGradient, Momentum, RunningVariance};
use syncbn::error::ExchangeError;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, ProcessGroup, Saved, SyncBatchNorm, Tensor,
};

use crate::common::all_reduce_groups;
use crate::common::{
    Batch, Kind, Placement, Random, TOLERANCE_ULP, bits, compare, definition, on_threads,
    process_groups, read,
};
use crate::process_groups::{CHANNELS, LONG};

const RANKS: usize = 3;

fn config() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS)
}

/// What may change on a living layer, with its name.
fn changed() -> [(BatchNormConfig, &'static str); 6] {
    [
        (config().with_eps(0.5), "eps"),
        (config().with_momentum(Momentum::NewWeight(0.75)), "momentum"),
        (config().with_momentum(Momentum::Cumulative), "momentum"),
        (config().with_running_variance(RunningVariance::Biased), "running_variance"),
        (config().with_affine_gradient(AffineGradient::GroupSum), "affine_gradient"),
        (config().with_use_batch_statistics(Some(true)), "use_batch_statistics"),
    ]
}

fn batches() -> Vec<Batch> {
    let mut random = Random::new(31);
    (0..RANKS).map(|rank| Batch::random(&[2 + rank, CHANNELS, 4], &mut random)).collect()
}

/// A layer of a rank that has made one step.
struct Rank {
    number: usize,
    layer: SyncBatchNorm,
    x: Tensor,
    saved: Saved,
}

impl Rank {
    fn new(group: &ProcessGroup, device: &Device, config: &BatchNormConfig) -> Self {
        let number = group.rank();
        let layer =
            SyncBatchNorm::new(config.clone(), [device.clone()]).unwrap().in_group(group).unwrap();
        let x = batches()[number].upload(device);
        let saved = block_on(layer.forward_train(&x)).expect("a step").saved;
        Self { number, layer, x, saved }
    }

    fn exchange(&self, next: Next) -> Result<(), Error> {
        let Self { layer, x, saved, .. } = self;
        block_on(async {
            match next {
                Next::Forward => layer.forward_train(x).await.map(drop),
                Next::Backward => layer.backward(saved, Backward::of(x, x)).await.map(drop),
                Next::Statistics => {
                    layer.synchronize(layer.local_statistics(x).await?).await.map(drop)
                }
                Next::Sums => {
                    let local = layer.local_gradient_sums(saved, Backward::of(x, x)).await?;
                    layer.synchronize(local).await.map(drop)
                }
            }
        })
    }
}

/// The exchanges of a layer, backward of the step that it has made.
#[derive(Clone, Copy, Debug)]
enum Next {
    Forward,
    Backward,
    Statistics,
    Sums,
}

/// Over every kind of device, with transports that gather and that all-reduce.
fn over_all<T: Send>(config: &BatchNormConfig, body: impl Fn(Rank) -> T + Sync) -> Vec<Vec<T>> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        for groups in [process_groups(RANKS, LONG), all_reduce_groups(RANKS, LONG)] {
            let ranks = groups.into_iter().zip(kind.devices(RANKS)).collect();
            found.push(on_threads(ranks, |(group, device)| {
                body(Rank::new(&group, &device, config))
            }));
        }
    }
    found
}

#[test]
fn settings_that_one_rank_changes_alone_are_named_on_all_at_the_next_exchange() {
    for ((changed, setting), culprit) in changed().iter().zip([0, 1, 2].into_iter().cycle()) {
        for next in [Next::Forward, Next::Backward, Next::Statistics, Next::Sums] {
            let found = over_all(&config(), |mut rank| {
                if rank.number == culprit {
                    rank.layer.set_config(changed.clone()).unwrap();
                }
                let before = rank.layer.running_stats();
                let error = rank.exchange(next).expect_err("other settings");
                assert_eq!(rank.layer.running_stats(), before);
                error
            });
            for error in found.into_iter().flatten() {
                let Error::Exchange(ExchangeError::Setting { rank, name, .. }) = &error else {
                    panic!("{error}")
                };
                assert_eq!((*rank, &**name), (culprit, *setting), "{next:?}: {error}");
            }
        }
    }
}

#[test]
fn settings_that_one_rank_changes_and_puts_back_are_equal_again() {
    over_all(&config(), |mut rank| {
        if rank.number == 1 {
            rank.layer.set_config(config().with_eps(0.5)).unwrap();
            rank.layer.set_config(config()).unwrap();
        }
        rank.exchange(Next::Forward).expect("equal settings");
    });
}

#[test]
fn settings_that_all_ranks_change_hold_from_the_next_exchange_on() {
    let batches = batches();
    for (changed, _) in changed() {
        let expected = definition(&batches, None, changed.eps).outputs;
        let found = over_all(&config(), |mut rank| {
            rank.layer.set_config(changed.clone()).unwrap();
            for next in [Next::Backward, Next::Statistics, Next::Sums] {
                rank.exchange(next).unwrap_or_else(|error| panic!("{next:?}: {error}"));
            }
            let y = block_on(rank.layer.forward_train(&rank.x)).expect("forward").output;
            (read(&[y]).remove(0), rank.layer.running_stats().unwrap())
        });
        for ranks in found {
            let y: Vec<Vec<f32>> = ranks.iter().map(|(y, _)| y.clone()).collect();
            compare(&batches, &y, &expected, TOLERANCE_ULP)
                .unwrap_or_else(|what| panic!("{changed:?}: {what}"));
            assert!(ranks.iter().all(|(_, running)| *running == ranks[0].1), "{changed:?}");
            assert_eq!(ranks[0].1.num_batches_tracked, 3);
        }
    }
}

/// Momentum 1 forgets everything before: what a layer has that begins with it.
#[test]
fn running_statistics_follow_with_the_momentum_that_all_ranks_have_set() {
    let momentum = Momentum::NewWeight(1.0);
    let running = |rank: &Rank| {
        let running = rank.layer.running_stats().unwrap();
        bits(&[running.mean, running.var])
    };
    let expected = over_all(&config().with_momentum(momentum), |rank| running(&rank));
    let found = over_all(&config(), |mut rank| {
        let before = running(&rank);
        rank.layer.set_momentum(momentum).unwrap();
        rank.exchange(Next::Statistics).expect("equal settings");
        assert_ne!(running(&rank), before);
        running(&rank)
    });
    assert_eq!(found, expected);
}
