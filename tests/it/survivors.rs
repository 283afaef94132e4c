//! Ranks that go on after others are gone, late, or fail once more while it is agreed who goes on.
//!
//! `layers` has what becomes of their layers.

mod layers;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use pollster::block_on;
use syncbn::collective::{Collective, CollectiveError, Gathered, LocalRank};
use syncbn::error::ExchangeError;
use syncbn::{Backward, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};

use crate::common::transport::groups_over;
use crate::common::{Batch, Random, bits, on_threads, process_groups};

/// Nobody may have to wait for it.
const LONG: Duration = Duration::from_secs(60);
/// Of those who wait in vain.
const SHORT: Duration = Duration::from_millis(300);

const CHANNELS: usize = 3;

fn layer(group: &ProcessGroup, device: &Device) -> SyncBatchNorm {
    let config = BatchNormConfig::torch(CHANNELS);
    SyncBatchNorm::new(config, [device.clone()]).unwrap().in_group(group).unwrap()
}

fn batch(rank: usize, step: usize) -> Batch {
    Batch::random(&[2 + rank, CHANNELS, 5], &mut Random::new((100 * rank + step) as u64))
}

/// Forward and backward with y as upstream gradient: the bits of y and of the gradient of x.
fn step(bn: &SyncBatchNorm, rank: usize, step: usize) -> Result<[Vec<u32>; 2], Error> {
    let batch = batch(rank, step);
    let x = bn.devices()[0].upload(&batch.dims, &batch.values)?;
    let forward = block_on(bn.forward_train(&x))?;
    let request = Backward::of(&x, &forward.output);
    let gradients = block_on(bn.backward(&forward.saved, request))?;
    let read = |values: Result<Vec<f32>, Error>| Ok::<_, Error>(bits(&[values?]).concat());
    Ok([read(block_on(forward.output.to_vec()))?, read(block_on(gradients.input.to_vec()))?])
}

fn exchange_error(error: &Error) -> &ExchangeError {
    match error {
        Error::Exchange(error) => error,
        other => panic!("expected an error of an exchange, found {other}"),
    }
}

/// The group after the call of some ranks, or their error; the other ranks come after `SHORT`.
fn late(world_size: usize, late_ranks: &[usize]) -> Vec<Result<Vec<usize>, Error>> {
    let decided = Barrier::new(world_size);
    // Nobody is known to be gone until all have an answer.
    let groups = process_groups(world_size, LONG);
    on_threads(groups.clone(), |group| {
        let is_late = late_ranks.contains(&group.rank());
        if is_late {
            decided.wait();
        }
        let found = block_on(group.survivors(SHORT));
        if !is_late {
            decided.wait();
        }
        let group = found?;
        block_on(group.barrier())?;
        Ok(group.world_ranks().to_vec())
    })
}

#[test]
fn most_go_on_without_a_rank_that_is_late_and_it_learns_that() {
    let found = late(3, &[1]);
    let error = found[1].as_ref().unwrap_err();
    assert!(error.to_string().contains("this rank came too late: rank(s) [0, 2]"), "{error}");
    let ExchangeError::LeftBehind { survivors, .. } = exchange_error(error) else {
        panic!("{error}")
    };
    assert_eq!(survivors, &[0, 2]);
    assert_eq!([&found[0], &found[2]], [&Ok(vec![0, 2]), &Ok(vec![0, 2])]);
}

/// Ranks 0 and 1 come, and of the others nobody knows whether they live.
#[test]
fn few_do_not_go_on_and_may_ask_again() {
    let groups = process_groups(5, LONG);
    let asked: Vec<_> =
        on_threads(groups[..2].to_vec(), |group| block_on(group.survivors(SHORT)).unwrap_err());
    for error in &asked {
        let ExchangeError::TooFew { missing, .. } = exchange_error(error) else {
            panic!("{error}")
        };
        assert!(missing.ends_with(&[2, 3, 4]), "{error}");
    }
    let found = on_threads(groups, |group| block_on(group.survivors(LONG)).unwrap().world_size());
    assert_eq!(found, [5; 5]);
}

#[test]
fn of_two_halves_the_one_with_the_lowest_rank_goes_on() {
    let found = late(4, &[0, 2]);
    // The first of 1 and 3 to give up leaves the other alone, which gives up as well; 0 and 2 then
    // come, and are half of all, with the lowest rank.
    for (rank, result) in found.iter().enumerate() {
        match rank % 2 {
            0 => assert_eq!(result, &Ok(vec![0, 2])),
            _ => assert!(
                matches!(
                    exchange_error(result.as_ref().unwrap_err()),
                    ExchangeError::TooFew { .. }
                ),
                "{result:?}"
            ),
        }
    }
}

/// Where all but one are known to be gone, nobody is left who could go on elsewhere.
#[test]
fn the_last_rank_goes_on_alone_and_at_once() {
    let mut groups = process_groups(4, LONG);
    let last = groups.remove(2);
    drop(groups);
    let began = Instant::now();
    let group = block_on(last.survivors(LONG)).unwrap();
    assert_eq!((group.world_size(), group.world_ranks()), (1, &[2][..]));
    assert!(began.elapsed() < LONG / 2);
    step(&layer(&group, &Device::host()), 2, 0).unwrap();
}

/// Rank 1 is dropped while ranks 0 and 2 wait for it; rank 3 has asked and drops its future.
#[test]
fn ranks_that_fail_while_it_is_agreed_are_left_out() {
    let mut groups = process_groups(4, LONG).into_iter();
    let [zero, one, two, three]: [ProcessGroup; 4] =
        std::array::from_fn(|_| groups.next().unwrap());
    let mut asked = Box::pin(three.survivors(LONG));
    assert!((&mut asked).now_or_never().is_none());
    drop(asked);
    drop(three);
    let threads = [zero, two].map(|group| {
        thread::spawn(move || {
            let group = block_on(group.survivors(LONG)).unwrap();
            block_on(group.barrier()).unwrap();
            group.world_ranks().to_vec()
        })
    });
    drop(one);
    assert_eq!(threads.map(|thread| thread.join().unwrap()), [[0, 2], [0, 2]]);
}

/// The answer has come, but its future is dropped: the others learn it in the new group.
#[test]
fn a_rank_that_drops_what_was_agreed_leaves_the_new_group() {
    let mut groups = process_groups(2, LONG).into_iter();
    let [zero, one]: [ProcessGroup; 2] = std::array::from_fn(|_| groups.next().unwrap());
    let mut asked = Box::pin(one.survivors(LONG));
    assert!((&mut asked).now_or_never().is_none());
    let group = block_on(zero.survivors(LONG)).unwrap();
    assert_eq!(group.world_size(), 2);
    drop(asked);
    let error = block_on(group.barrier()).unwrap_err();
    assert!(matches!(exchange_error(&error), ExchangeError::Left { rank: 1, .. }), "{error}");
    let alone = block_on(group.survivors(LONG)).unwrap();
    assert_eq!(alone.world_ranks(), [0]);
}

#[test]
fn a_group_that_works_breaks_when_a_rank_asks_for_its_survivors() {
    let found = on_threads(process_groups(2, LONG), |group| {
        if group.rank() == 1 {
            let error = block_on(group.barrier()).unwrap_err();
            assert!(
                error.to_string().ends_with(
                    "rank 0 failed: survivors of the group: it ends the group, to go on with the \
                     ranks that survive"
                ),
                "{error}"
            );
        }
        block_on(group.survivors(LONG)).unwrap().world_size()
    });
    assert_eq!(found, [2, 2]);
}

/// A transport that does not say which ranks live.
#[derive(Debug)]
struct Unaware(LocalRank);

impl Collective for Unaware {
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

    fn abort(&self, message: Vec<u8>) {
        self.0.abort(message);
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        self.0.split(key, members)
    }
}

#[test]
fn a_transport_that_cannot_know_who_lives_says_so() {
    let groups = groups_over(2, LONG, Unaware);
    for group in &groups {
        let error = block_on(group.survivors(LONG)).unwrap_err();
        assert!(matches!(exchange_error(&error), ExchangeError::Transport { .. }), "{error}");
        assert!(error.to_string().contains("begin again from a checkpoint"), "{error}");
        assert_eq!(group.failure(), None, "the group works as before");
    }
    on_threads(groups, |group| block_on(group.barrier()).unwrap());
    let alone = block_on(ProcessGroup::single().survivors(LONG)).unwrap();
    assert_eq!(alone.world_size(), 1);
}

/// A call whose future is dropped breaks the group; its rank lives, and the others wait for it.
#[test]
fn a_rank_that_has_dropped_a_call_is_waited_for() {
    let found = on_threads(process_groups(3, LONG), |group| {
        let bn = layer(&group, &Device::host());
        if group.rank() == 1 {
            let batch = batch(1, 0);
            let x = Device::host().upload(&batch.dims, &batch.values).unwrap();
            drop(bn.forward_train(&x).now_or_never());
            // The others have asked by then, as far as a test can wait for that.
            thread::sleep(SHORT);
        } else {
            step(&bn, group.rank(), 0).unwrap_err();
        }
        block_on(group.survivors(LONG)).unwrap().world_ranks().to_vec()
    });
    assert_eq!(found, [[0, 1, 2]; 3]);
}

/// A request that is dropped does not take the next one with it.
#[test]
fn the_last_request_of_a_rank_counts() {
    let mut groups = process_groups(2, LONG).into_iter();
    let [zero, one]: [ProcessGroup; 2] = std::array::from_fn(|_| groups.next().unwrap());
    let mut first = Box::pin(zero.survivors(LONG));
    assert!((&mut first).now_or_never().is_none());
    let mut second = Box::pin(zero.survivors(LONG));
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    let other = thread::spawn(move || block_on(one.survivors(LONG)).unwrap().world_size());
    assert_eq!(block_on(second).unwrap().world_size(), 2);
    assert_eq!(other.join().unwrap(), 2);
}
