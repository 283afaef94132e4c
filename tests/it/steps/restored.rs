//! A state that some ranks change and put back between two exchanges, or do not: what the exchange
//! alone makes of it, of one layer and of several.

use std::time::Duration;

use syncbn::config::Momentum;
use syncbn::error::ExchangeError;
use syncbn::state::{LoadOptions, StateDict};
use syncbn::stats::RunningStats;
use syncbn::{ProcessGroup, Tensor, joint};

use super::common::all_reduce_groups;
use super::*;

/// Nobody waits in vain here.
const LONG: Duration = Duration::from_secs(20);
const RANKS: usize = 3;
const CHANNELS: usize = 2;

/// A layer of a rank, with what it measures.
struct Rank {
    bn: SyncBatchNorm,
    x: Tensor,
}

impl Rank {
    fn new(group: &ProcessGroup, device: &Device) -> Self {
        let bn = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [device.clone()]).unwrap();
        let bn = bn.in_group(group).unwrap();
        Self {
            bn,
            x: Batch::random(&[4, CHANNELS], &mut Random::new(group.rank() as u64)).upload(device),
        }
    }

    fn local(&self) -> LocalStatistics {
        block_on(self.bn.local_statistics(&self.x)).unwrap()
    }

    fn synchronize(&self) -> Result<GlobalStatistics, Error> {
        block_on(self.bn.synchronize(self.local()))
    }

    fn running(&self) -> RunningStats {
        self.bn.running_stats().unwrap()
    }

    fn state(&self) -> StateDict {
        block_on(self.bn.state()).unwrap()
    }

    fn load(&mut self, state: &StateDict) {
        self.bn.load_state(state, &LoadOptions::default()).unwrap();
    }

    /// The own state with weights of another size.
    fn average(&self) -> StateDict {
        let mut state = self.state();
        state.weight.iter_mut().flatten().for_each(|weight| *weight *= 0.5);
        state
    }

    /// Evaluates with another state and another momentum and puts the own ones back.
    fn evaluate_with_the_average(&mut self) {
        let own = self.state();
        let momentum = self.bn.config().momentum;
        self.load(&self.average());
        self.bn.set_momentum(Momentum::NewWeight(0.5)).unwrap();
        block_on(self.bn.forward_eval(&self.x)).unwrap();
        self.load(&own);
        self.bn.set_momentum(momentum).unwrap();
        assert_eq!(self.state(), own);
    }
}

/// Over every kind of device, with transports that gather and that all-reduce: what every rank
/// has found.
fn over_all<T: Send>(body: impl Fn(usize, &ProcessGroup, &Device) -> T + Sync) -> Vec<Vec<T>> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        for groups in [process_groups(RANKS, LONG), all_reduce_groups(RANKS, LONG)] {
            let ranks = groups.into_iter().zip(kind.devices(RANKS)).collect();
            found.push(on_threads(ranks, |(group, device)| body(group.rank(), &group, &device)));
        }
    }
    found
}

#[test]
fn a_state_that_some_ranks_put_back_is_equal_in_an_exchange_that_is_taken_alone() {
    for loading in [&[0][..], &[2], &[0, 1], &[0, 1, 2]] {
        over_all(|number, group, device| {
            let mut rank = Rank::new(group, device);
            let undisturbed = Rank::new(group, device);
            for step in 0..3 {
                let global = rank
                    .synchronize()
                    .unwrap_or_else(|error| panic!("step {step}, {loading:?}: {error}"));
                assert_eq!(global, undisturbed.synchronize().unwrap());
                // Between forward and backward of some, whose exchange tells no state.
                let is_loading = loading.contains(&number);
                if is_loading {
                    rank.evaluate_with_the_average();
                }
                let saved = block_on(rank.bn.normalize(&rank.x, &global)).unwrap().saved;
                let sums =
                    block_on(rank.bn.local_gradient_sums(&saved, Backward::of(&rank.x, &rank.x)))
                        .unwrap();
                block_on(rank.bn.synchronize(sums))
                    .unwrap_or_else(|error| panic!("step {step}: {error}"));
                if is_loading {
                    rank.evaluate_with_the_average();
                }
            }
            assert_eq!(rank.running(), undisturbed.running());
            assert_eq!(rank.running().num_batches_tracked, 3);
        });
    }
}

#[test]
fn a_state_that_one_rank_puts_back_is_equal_where_some_take_the_whole_pass() {
    over_all(|number, group, device| {
        let mut rank = Rank::new(group, device);
        for step in 0..3 {
            let result = match number {
                0 => rank.synchronize().map(drop),
                _ => block_on(rank.bn.forward_train(&rank.x)).map(drop),
            };
            result.unwrap_or_else(|error| panic!("step {step}: {error}"));
            if number == step {
                rank.evaluate_with_the_average();
            }
        }
    });
}

#[test]
fn a_state_that_some_ranks_put_back_is_equal_in_a_joint_exchange() {
    for loading in [&[0][..], &[1], &[1, 2]] {
        over_all(|number, group, device| {
            let [first, mut second, third] = [(); 3].map(|()| Rank::new(group, device));
            for step in 0..3 {
                let ranks = [&first, &second, &third];
                let globals =
                    block_on(joint::synchronize(ranks.map(|rank| (&rank.bn, rank.local()))));
                let globals =
                    globals.unwrap_or_else(|error| panic!("step {step}, {loading:?}: {error}"));
                assert!(globals.iter().all(|global| *global == globals[0]));
                if loading.contains(&number) {
                    second.evaluate_with_the_average();
                }
            }
            assert_eq!((second.running(), third.running()), (first.running(), first.running()));
            assert_eq!(first.running().num_batches_tracked, 3);
        });
    }
}

/// Whether every rank says that the state of this one differs.
fn assert_named(errors: Vec<Vec<Error>>, culprit: usize) {
    for error in errors.into_iter().flatten() {
        let Error::Exchange(ExchangeError::State { rank, .. }) = &error else { panic!("{error}") };
        assert_eq!(*rank, culprit, "{error}");
    }
}

#[test]
fn another_state_that_one_rank_keeps_is_named_on_all_and_nothing_follows() {
    for culprit in [0, 2] {
        let alone = over_all(|number, group, device| {
            let mut rank = Rank::new(group, device);
            rank.synchronize().expect("equal states");
            if number == culprit {
                rank.load(&rank.average());
            }
            let before = rank.running();
            let error = rank.synchronize().expect_err("another state");
            assert_eq!(rank.running(), before);
            error
        });
        assert_named(alone, culprit);
        let joint = over_all(|number, group, device| {
            let first = Rank::new(group, device);
            let mut second = Rank::new(group, device);
            let exchange = |first: &Rank, second: &Rank| {
                let calls = [first, second].map(|rank| (&rank.bn, rank.local()));
                block_on(joint::synchronize(calls)).map(drop)
            };
            exchange(&first, &second).expect("equal states");
            if number == culprit {
                second.load(&second.average());
            }
            let before = [first.running(), second.running()];
            let error = exchange(&first, &second).expect_err("another state");
            assert_eq!([first.running(), second.running()], before);
            let Error::Joint { index: 1, error: source } = error else { panic!("{error}") };
            *source
        });
        assert_named(joint, culprit);
    }
}
