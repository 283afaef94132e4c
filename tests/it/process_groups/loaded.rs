//! States that only some ranks load in the middle of training: equal ones are equal, whoever loads,
//! and others are named.

use futures::future::{join, join_all};
use syncbn::collective::Started;
use syncbn::error::ExchangeError;
use syncbn::state::{LoadOptions, StateDict};
use syncbn::stats::GlobalStatistics;
use syncbn::{
    BatchNormConfig, Device, Error, Forward, Normalized, ProcessGroup, SyncBatchNorm, Tensor, joint,
};

use crate::common::all_reduce_groups;
use crate::common::{Kind, Placement, on_threads, process_groups};
use crate::process_groups::{CHANNELS, LONG};

const RANKS: usize = 3;

/// A layer of a rank, with what it normalizes.
struct Rank {
    layer: SyncBatchNorm,
    x: Tensor,
}

impl Rank {
    fn new(group: &ProcessGroup, device: &Device) -> Self {
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [device.clone()])
            .unwrap()
            .in_group(group)
            .unwrap();
        let values: Vec<f32> =
            (0..2 * CHANNELS).map(|value| (value + group.rank()) as f32).collect();
        Self { layer, x: device.upload(&[2, CHANNELS], &values).unwrap() }
    }

    fn step(&self) -> Result<Normalized, Error> {
        pollster::block_on(self.layer.forward_train(&self.x))
    }

    fn state(&self) -> StateDict {
        pollster::block_on(self.layer.state()).unwrap()
    }

    /// Evaluates with another state and puts the own one back.
    fn evaluate_with(&mut self, other: &StateDict) {
        let own = self.state();
        self.layer.load_state(other, &LoadOptions::default()).unwrap();
        pollster::block_on(self.layer.forward_eval(&self.x)).unwrap();
        self.layer.load_state(&own, &LoadOptions::default()).unwrap();
        assert_eq!(self.state(), own);
    }
}

/// The state with weights of another size.
fn scaled(state: &StateDict, factor: f32) -> StateDict {
    let mut scaled = state.clone();
    scaled.weight.as_mut().unwrap().iter_mut().for_each(|weight| *weight *= factor);
    scaled
}

/// Over every kind of device, with transports that gather and that all-reduce.
fn over_all<T: Send>(body: impl Fn(&ProcessGroup, Rank) -> T + Sync) -> Vec<Vec<T>> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        for groups in [process_groups(RANKS, LONG), all_reduce_groups(RANKS, LONG)] {
            let ranks = groups.into_iter().zip(kind.devices(RANKS)).collect();
            found.push(on_threads(ranks, |(group, device)| {
                body(&group, Rank::new(&group, &device))
            }));
        }
    }
    found
}

#[test]
fn a_state_that_some_ranks_change_and_put_back_is_equal_again() {
    for loading in [&[0][..], &[2], &[0, 1], &[0, 1, 2]] {
        over_all(|group, mut rank| {
            for step in 0..3 {
                rank.step().unwrap_or_else(|error| panic!("step {step}, {loading:?}: {error}"));
                if loading.contains(&group.rank()) {
                    let average = scaled(&rank.state(), 0.5);
                    rank.evaluate_with(&average);
                }
            }
            assert_eq!(rank.layer.running_stats().unwrap().num_batches_tracked, 3);
        });
    }
}

#[test]
fn a_state_that_was_set_by_hand_and_loaded_back_is_equal_again() {
    over_all(|group, mut rank| {
        rank.step().unwrap();
        if group.rank() == 1 {
            let own = rank.state();
            rank.layer.set_parameters(Some(&[7.0; CHANNELS]), None).unwrap();
            rank.layer.load_state(&own, &LoadOptions::default()).unwrap();
        }
        rank.step().unwrap_or_else(|error| panic!("{error}"));
    });
}

#[test]
fn a_joint_call_finds_them_equal_too() {
    over_all(|group, first| {
        let mut second = Rank::new(group, &first.layer.devices()[0]);
        for step in 0..3 {
            let like = |x: &Tensor| x.device().zeros(x.dims()).unwrap();
            let mut outputs = [like(&first.x), like(&second.x)];
            let [of_first, of_second] = &mut outputs;
            let requests = [
                (&first.layer, Forward::of(&first.x).write_to(of_first)),
                (&second.layer, Forward::of(&second.x).write_to(of_second)),
            ];
            pollster::block_on(joint::forward_train(requests))
                .unwrap_or_else(|error| panic!("step {step}: {error}"));
            if group.rank() == 1 {
                let average = scaled(&second.state(), 0.5);
                second.evaluate_with(&average);
            }
        }
    });
}

#[test]
fn another_state_that_one_rank_loads_alone_is_named_on_all() {
    for culprit in [0, 2] {
        let found = over_all(|group, mut rank| {
            rank.step().unwrap();
            if group.rank() == culprit {
                let average = scaled(&rank.state(), 0.5);
                rank.layer.load_state(&average, &LoadOptions::default()).unwrap();
            }
            let before = rank.layer.running_stats();
            let error = rank.step().map(|_| ()).expect_err("another state");
            assert_eq!(rank.layer.running_stats(), before);
            error
        });
        for error in found.into_iter().flatten() {
            let Error::Exchange(ExchangeError::State { rank, name, found, expected, .. }) = &error
            else {
                panic!("expected another state of rank {culprit}, found {error}")
            };
            assert_eq!((*rank, &**name), (culprit, "weight"), "{error}");
            // Both are checksums: every rank has announced its own.
            assert!(found.starts_with("0x") && expected.starts_with("0x"), "{error}");
        }
    }
}

/// Local statistics of a rank's x, on their way to the others. It does not block: a future that
/// blocks its thread may take the wake-up of another one that the thread runs.
async fn begun(rank: &Rank) -> Started<GlobalStatistics> {
    let local = rank.layer.local_statistics(&rank.x).await.unwrap();
    rank.layer.synchronize(local).start()
}

/// On one thread, rank by rank: rank 0 comes to its broadcast before its exchange has ended.
#[test]
fn a_state_that_is_shared_behind_an_exchange_is_the_one_that_the_exchange_leaves() {
    for kind in Kind::ALL {
        for groups in [process_groups(RANKS, LONG), all_reduce_groups(RANKS, LONG)] {
            let ranks = groups.iter().zip(kind.devices(RANKS));
            let mut ranks: Vec<Rank> =
                ranks.map(|(group, device)| Rank::new(group, &device)).collect();
            let shared = ranks.iter_mut().map(async |rank| {
                let exchange = begun(rank).await;
                join(exchange, rank.layer.broadcast_state(0)).await
            });
            for (exchanged, shared) in pollster::block_on(join_all(shared)) {
                exchanged.expect("the exchange");
                shared.expect("the broadcast");
            }
            let states: Vec<StateDict> = ranks.iter().map(Rank::state).collect();
            assert!(states.iter().all(|state| *state == states[0]), "{kind:?}: {states:?}");
            assert_eq!(states[0].num_batches_tracked, Some(1), "{kind:?}");
            for step in pollster::block_on(join_all(
                ranks.iter().map(|rank| rank.layer.forward_train(&rank.x)),
            )) {
                step.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            }
        }
    }
}

/// The exchange announces the states before it. The next one has to announce those that were
/// loaded meanwhile.
#[test]
fn a_state_that_is_loaded_while_an_exchange_is_under_way_is_compared_in_the_next() {
    for groups in [process_groups(RANKS, LONG), all_reduce_groups(RANKS, LONG)] {
        let mut ranks: Vec<Rank> =
            groups.iter().map(|group| Rank::new(group, &Device::host())).collect();
        let mut exchanges = Vec::new();
        for (index, rank) in ranks.iter_mut().enumerate() {
            exchanges.push(pollster::block_on(begun(rank)));
            // The exchange ends with the last rank, which loads nothing.
            if index + 1 < RANKS {
                let state = scaled(&rank.state(), if index == 0 { 0.5 } else { 1.0 });
                rank.layer.load_state(&state, &LoadOptions::default()).unwrap();
            }
        }
        for exchanged in pollster::block_on(join_all(exchanges)) {
            exchanged.expect("equal states");
        }
        let steps = ranks.iter().map(|rank| rank.layer.forward_train(&rank.x));
        for step in pollster::block_on(join_all(steps)) {
            let error = step.map(|_| ()).expect_err("another state");
            let Error::Exchange(ExchangeError::State { rank: 0, name, .. }) = &error else {
                panic!("{error}")
            };
            assert_eq!(&**name, "weight", "{error}");
        }
    }
}
