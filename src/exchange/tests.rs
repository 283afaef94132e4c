//! Calls below the layers: turns that the caller passes, subjects that agree with any.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, join, join_all, select};
use pollster::block_on;

use super::{Call, Contribution, Exchange, join_payloads};
use crate::checksum::{Listing, Manifest};
use crate::collective::{
    ANY_SUBJECT, Collective, CollectiveError, Gathered, LocalGroup, LocalRank, NodePayload, Phase,
    ProcessGroup, Values,
};
use crate::error::ExchangeError;
use crate::stats::{GradientSums, Moments};
use crate::timer::Timer;

/// The crate's own transport as one that supports all-reduce.
#[derive(Debug)]
struct Merging(LocalRank);

impl Collective for Merging {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn world_size(&self) -> usize {
        self.0.world_size()
    }

    fn all_gather(
        &self,
        message: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        self.0.all_gather(message, deadline)
    }

    fn supports_all_reduce(&self) -> bool {
        true
    }

    fn abort(&self, message: Vec<u8>) {
        self.0.abort(message);
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        self.0.split(key, members)
    }
}

/// The crate's own transport with a clock that a test sets, in milliseconds.
#[derive(Debug)]
struct Clocked(LocalRank, Arc<AtomicU64>);

impl Collective for Clocked {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn world_size(&self) -> usize {
        self.0.world_size()
    }

    fn all_gather(
        &self,
        message: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        self.0.all_gather(message, deadline)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.1.load(Ordering::Relaxed))
    }

    fn abort(&self, message: Vec<u8>) {
        self.0.abort(message);
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        self.0.split(key, members)
    }
}

fn manifest(name: &str) -> Manifest {
    let mut lines = Listing::default();
    lines.add(name, 1);
    lines.finish()
}

/// A layer of one channel for each of `world_size` processes of one rank.
fn exchanges(world_size: usize, merges: bool) -> Vec<Arc<Exchange>> {
    spread(&vec![1; world_size], merges)
}

/// A layer of one channel for processes with these numbers of ranks.
fn spread(ranks: &[usize], merges: bool) -> Vec<Arc<Exchange>> {
    let world_size = ranks.len();
    let groups = LocalGroup::ranks(world_size).into_iter().map(|rank| {
        if merges { ProcessGroup::new(Merging(rank)) } else { ProcessGroup::new(rank) }
    });
    groups.zip(ranks).map(|(group, &ranks)| Arc::new(Exchange::new(&group, "", 1, ranks))).collect()
}

fn begin(exchange: &Arc<Exchange>, phase: Phase, subject: u64) -> Call {
    exchange.begin(phase, subject, &manifest("settings"), Duration::ZERO).unwrap()
}

/// Sums one number of every process in one call.
async fn sum(call: &Call, number: f64) -> Result<f64, ExchangeError> {
    let local = [vec![GradientSums { sum_dy: number, sum_dy_xmu: 0.0 }]];
    let parts = [Contribution { call, local: &local, state: None, state_version: 0 }];
    loop {
        if let Some(sums) = Call::merge(&parts).await.map_err(|failure| failure.error)? {
            return Ok(sums[0][0].sum_dy);
        }
    }
}

#[test]
fn a_call_belongs_to_nobody_and_may_go_to_another_thread() {
    fn assert_owned<T: Send + Sync + 'static>(_: &T) {}
    let call = begin(&exchanges(1, false)[0], Phase::Backward, 0);
    assert_owned(&call);
    assert_eq!(block_on(sum(&call, 3.0)), Ok(3.0));
    call.end(&Ok(()));
}

#[test]
fn the_next_exchange_begins_when_the_call_before_it_passes_the_turn_or_ends() {
    let ends: [fn(&mut Option<Call>); 2] =
        [|call| call.as_ref().unwrap().pass(), |call| call.take().unwrap().end(&Ok(()))];
    for end in ends {
        let exchanges = exchanges(2, false);
        let begun =
            exchanges.iter().map(|exchange| [0; 2].map(|_| begin(exchange, Phase::Backward, 0)));
        let [[first, second], [other_first, other_second]] =
            begun.collect::<Vec<_>>().try_into().unwrap();
        let (a, b) = block_on(join(sum(&first, 1.0), sum(&other_first, 2.0)));
        assert_eq!((a, b), (Ok(3.0), Ok(3.0)));
        other_first.pass();
        // Passing once more changes nothing.
        other_first.pass();
        let mut held = Box::pin(sum(&second, 4.0));
        let mut free = Box::pin(sum(&other_second, 8.0));
        assert!(held.as_mut().now_or_never().is_none() && free.as_mut().now_or_never().is_none());
        assert!(held.as_mut().now_or_never().is_none(), "the first call has not passed its turn");
        let mut first = Some(first);
        end(&mut first);
        assert_eq!(block_on(join(held, free)), (Ok(12.0), Ok(12.0)));
    }
}

#[test]
fn a_call_waits_for_an_earlier_one_by_the_clock_of_the_transport() {
    const LIMIT: Duration = Duration::from_millis(20);
    let clock = Arc::new(AtomicU64::new(0));
    let ranks = LocalGroup::ranks(2).into_iter();
    let mut groups =
        ranks.map(|rank| ProcessGroup::new(Clocked(rank, clock.clone())).with_deadline(LIMIT));
    let exchange = Arc::new(Exchange::new(&groups.next().unwrap(), "", 1, 1));
    let [_first, second] = [0; 2].map(|_| begin(&exchange, Phase::Backward, 0));
    let mut waits = Box::pin(sum(&second, 1.0));
    // Suspended for ten times the limit.
    let waits_on =
        matches!(block_on(select(waits.as_mut(), Timer::new(LIMIT * 10))), Either::Right(_));
    assert!(waits_on, "no time has passed");
    clock.store(LIMIT.as_millis() as u64, Ordering::Relaxed);
    let error = block_on(waits).expect_err("nobody polls the first");
    assert!(matches!(error, ExchangeError::Blocked { limit: LIMIT, .. }), "{error}");
}

/// The result of each rank in backward, if the ranks announce these subjects.
fn agree(subjects: &[u64], merges: bool) -> Vec<Result<f64, ExchangeError>> {
    let exchanges = exchanges(subjects.len(), merges);
    let calls: Vec<Call> = exchanges
        .iter()
        .zip(subjects)
        .map(|(exchange, &subject)| begin(exchange, Phase::Backward, subject))
        .collect();
    block_on(join_all(calls.iter().map(|call| sum(call, 1.0))))
}

#[test]
fn a_subject_of_any_agrees_with_every_other() {
    const ANY: u64 = ANY_SUBJECT;
    for subjects in
        [&[ANY, 3][..], &[3, ANY], &[ANY; 3], &[ANY, 3, ANY, 3, 3], &[3, 3, ANY, ANY, ANY]]
    {
        for merges in [false, true] {
            let expected = vec![Ok(subjects.len() as f64); subjects.len()];
            assert_eq!(agree(subjects, merges), expected, "{subjects:?}");
        }
    }
}

#[test]
fn two_different_subjects_are_found_wherever_ranks_say_any() {
    const ANY: u64 = ANY_SUBJECT;
    let cases = [
        (&[ANY, 3, 4][..], 2, ("4", "3")),
        (&[3, ANY, 4], 2, ("4", "3")),
        (&[3, 4, ANY], 1, ("4", "3")),
        (&[ANY, 3, ANY, 4, 4], 1, ("3", "4")),
        (&[4, ANY, ANY, ANY, 3, ANY, 3, ANY], 0, ("4", "3")),
        (&[0, ANY, ANY, ANY, ANY, ANY, ANY, 1], 7, ("1", "0")),
    ];
    // Miri takes minutes for the larger groups.
    let most = if cfg!(miri) { 3 } else { 8 };
    let cases = cases.into_iter().filter(|(subjects, ..)| subjects.len() <= most);
    for (subjects, culprit, (said, of_most)) in cases {
        for merges in [false, true] {
            for error in agree(subjects, merges) {
                let Err(ExchangeError::Mismatch { rank, what, found, expected, .. }) = &error
                else {
                    panic!("{subjects:?}: {error:?}")
                };
                assert_eq!(*what, "forward exchange of `saved`", "{subjects:?}");
                assert_eq!(
                    (*rank, &**found, &**expected),
                    (culprit, said, of_most),
                    "{subjects:?}"
                );
            }
        }
    }
}

/// Sums a one of every rank. Each process announces its entry of `states`.
fn count(exchanges: &[Arc<Exchange>], ranks: &[usize], states: &[bool]) -> Vec<Option<f64>> {
    let one = vec![GradientSums { sum_dy: 1.0, sum_dy_xmu: 0.0 }];
    let process = async |((exchange, &ranks), &announces): ((&Arc<Exchange>, &usize), &bool)| {
        let call = begin(exchange, Phase::Forward, 0);
        let local = vec![one.clone(); ranks];
        let state = announces.then(|| manifest("state"));
        let contribution =
            |state| [Contribution { call: &call, local: &local, state, state_version: 0 }];
        let merged = Call::merge(&contribution(state)).await.unwrap();
        let sum = merged.as_ref().map(|sums| sums[0][0].sum_dy);
        if merged.is_none() {
            let all = Call::merge(&contribution(Some(manifest("state"))))
                .await
                .unwrap()
                .expect("all announce");
            assert_eq!(all[0][0].sum_dy, exchange.total_ranks() as f64);
        }
        call.end(&Ok(()));
        sum
    };
    block_on(join_all(exchanges.iter().zip(ranks).zip(states).map(process)))
}

#[test]
fn ranks_are_assumed_to_be_equally_many_until_they_are_learnt_under_every_name() {
    for merges in [false, true] {
        let ranks = [1, 2, 3];
        let exchanges = spread(&ranks, merges);
        let total = |exchanges: &[Arc<Exchange>]| {
            exchanges.iter().map(|e| e.total_ranks()).collect::<Vec<_>>()
        };
        assert_eq!(total(&exchanges), [3, 6, 9]);
        assert_eq!(count(&exchanges, &ranks, &[false; 3]), [Some(6.0); 3]);
        assert_eq!(total(&exchanges), [6, 6, 6]);
        let renamed: Vec<_> =
            exchanges.iter().map(|exchange| Arc::new(exchange.renamed("other"))).collect();
        assert_eq!(total(&renamed), [6, 6, 6]);
        assert!(renamed.iter().all(|exchange| exchange.ranks_to_announce() == 0));
        assert_eq!(begin(&renamed[0], Phase::Forward, 0).step(), 1);
    }
}

#[test]
fn numbers_of_ranks_and_states_that_some_announce_are_announced_again_in_one_call() {
    for merges in [false, true] {
        let ranks = [2, 1, 1, 3];
        let exchanges = spread(&ranks, merges);
        assert_eq!(count(&exchanges, &ranks, &[false, true, false, true]), [None; 4]);
        assert_eq!(count(&exchanges, &ranks, &[false; 4]), [Some(7.0); 4]);
    }
}

#[test]
fn nodes_of_different_numbers_of_channels_do_not_merge() {
    let node = |index, channels| {
        let values = Values::Floats(vec![[1.0; 2]; channels]);
        vec![NodePayload { level: 0, index, count: 1, values }]
    };
    let join = |left, right| join_payloads::<Moments>(node(2, left), node(3, right));
    assert_eq!(join(2, 2).map(|nodes| nodes.len()), Ok(1));
    for [left, right] in [[2, 3], [3, 2]] {
        let error = format!("a node holds values of {right} channels, expected {left}");
        assert_eq!(join(left, right), Err(error));
    }
}
