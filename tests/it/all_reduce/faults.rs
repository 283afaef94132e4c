//! Ranks that ask for different things, or do not come: every rank gets an error that names them,
//! and keeps its values.

use futures::FutureExt;
use pollster::block_on;
use syncbn::error::ExchangeError;
use syncbn::{Error, ProcessGroup};

use super::*;

/// Lets rank 1 of three do something else than the others, after two calls that succeed; returns
/// what `f` makes of the errors, the same on every rank and over both transports.
fn one_elsewhere<T: PartialEq + std::fmt::Debug + Send>(
    other: impl Fn(&ProcessGroup) -> Result<(), Error> + Sync,
    most: impl Fn(&ProcessGroup) -> Result<(), Error> + Sync,
    f: impl Fn(&ExchangeError) -> T + Sync,
) -> T {
    one_elsewhere_in(both(3), other, most, f)
}

fn one_elsewhere_in<T: PartialEq + std::fmt::Debug + Send>(
    kinds: impl IntoIterator<Item = Vec<ProcessGroup>>,
    other: impl Fn(&ProcessGroup) -> Result<(), Error> + Sync,
    most: impl Fn(&ProcessGroup) -> Result<(), Error> + Sync,
    f: impl Fn(&ExchangeError) -> T + Sync,
) -> T {
    let mut found: Vec<T> = Vec::new();
    for groups in kinds {
        found.extend(on_threads(groups, |group| {
            block_on(group.barrier()).expect("a barrier");
            block_on(group.all_reduce_sum([&mut [1.0]])).expect("a sum");
            let error = if group.rank() == 1 { other(&group) } else { most(&group) }
                .expect_err("different wishes");
            let Error::Exchange(error) = error else { panic!("{error}") };
            assert_eq!(group.failure().as_ref(), Some(&error));
            let next = block_on(group.barrier()).expect_err("a group that has failed");
            assert!(matches!(next, Error::Exchange(ExchangeError::Poisoned { .. })), "{next}");
            f(&error)
        }));
    }
    let first = found.remove(0);
    assert!(found.iter().all(|found| *found == first), "{first:?}, {found:?}");
    first
}

fn mismatch(error: &ExchangeError) -> (usize, &'static str, String, String) {
    let ExchangeError::Mismatch { rank, what, found, expected, .. } = error else {
        panic!("{error}")
    };
    (*rank, *what, found.to_string(), expected.to_string())
}

/// Sums slices of these lengths; they are unchanged where that fails.
fn sum(group: &ProcessGroup, lengths: &[usize]) -> Result<(), Error> {
    let mut slices: Vec<Vec<f32>> = lengths.iter().map(|&length| vec![7.0; length]).collect();
    let before = slices.clone();
    let result = block_on(group.all_reduce_sum(&mut slices));
    assert!(result.is_ok() || slices == before);
    result
}

#[test]
fn slices_of_other_lengths_are_an_error_on_all_ranks() {
    let found = one_elsewhere(|group| sum(group, &[5]), |group| sum(group, &[3, 3]), mismatch);
    assert_eq!(found, (1, "number of values", "5".to_owned(), "6".to_owned()));
    let text = one_elsewhere(
        |group| sum(group, &[2, 4]),
        |group| sum(group, &[3, 3]),
        ToString::to_string,
    );
    assert!(text.contains("length of slice 0 of rank 1 is 2, expected 3"), "{text}");
    let text =
        one_elsewhere(|group| sum(group, &[1]), |group| sum(group, &[2]), ToString::to_string);
    assert!(
        text.starts_with(
            "all_reduce_sum, exchange 2 of the group: number of values of rank 1 is 1"
        ),
        "{text}"
    );
}

#[test]
fn a_barrier_does_not_meet_a_broadcast_nor_a_layer() {
    let broadcast = |group: &ProcessGroup| {
        let mut values = [group.rank() as f32];
        let result = block_on(group.broadcast(0, &mut values));
        assert!(result.is_ok() || values == [group.rank() as f32]);
        result
    };
    let barrier = |group: &ProcessGroup| block_on(group.barrier());
    let what = |error: &ExchangeError| mismatch(error);
    let names = ["barrier".to_owned(), "broadcast".to_owned()];
    let [first, second] = names.clone();
    assert_eq!(one_elsewhere(barrier, broadcast, what), (1, "call", first, second));
    let [first, second] = names;
    assert_eq!(one_elsewhere(broadcast, barrier, what), (1, "call", second, first));
    let forward = |group: &ProcessGroup| {
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [Device::host()])
            .unwrap()
            .in_group(group)
            .unwrap();
        block_on(layer.forward_train(&Device::host().zeros(&[2, 1]).unwrap())).map(drop)
    };
    assert_eq!(one_elsewhere_in([process_groups(3, LONG)], forward, barrier, what).1, "call");
    // Where one gathers and others all-reduce, nobody can read it.
    let unusable = |error: &ExchangeError| matches!(error, ExchangeError::Frame { .. });
    assert!(one_elsewhere_in([all_reduce_groups(3, LONG)], forward, barrier, unusable));
}

#[test]
fn ranks_that_broadcast_from_different_ranks_or_other_lengths_are_told() {
    let broadcast = |from, length| {
        move |group: &ProcessGroup| block_on(group.broadcast(from, &mut vec![0.0; length]))
    };
    let (rank, what, found, expected) = one_elsewhere(broadcast(3, 2), broadcast(0, 2), mismatch);
    assert_eq!(what, "`from`");
    assert_eq!((rank, found.as_str(), expected.as_str()), (1, "3", "0"));
    let none = usize::MAX;
    let found = one_elsewhere(broadcast(none, 2), broadcast(0, 2), mismatch);
    assert_eq!(found, (1, "`from`", none.to_string(), "0".to_owned()));
    let found = one_elsewhere(broadcast(0, 3), broadcast(0, 2), mismatch);
    assert_eq!(found, (1, "number of values", "3".to_owned(), "2".to_owned()));
}

#[test]
fn a_rank_that_does_not_come_is_late() {
    const DEADLINE: Duration = Duration::from_millis(300);
    on_threads(process_groups(3, DEADLINE), |group| {
        if group.rank() == 1 {
            std::thread::sleep(3 * DEADLINE);
        }
        let mut values = [4.0];
        let error = block_on(group.all_reduce_sum([&mut values])).expect_err("a late rank");
        let Error::Exchange(ExchangeError::Late { at, ranks, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!(
            (at.as_str(), &ranks[..], values),
            ("all_reduce_sum, exchange 0 of the group", &[1][..], [4.0])
        );
    });
}

/// Polls a future once; it waits.
fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) {
    assert!(future.now_or_never().is_none(), "nobody else has come");
}

#[test]
fn a_future_that_is_dropped_in_its_exchange_is_named_as_dropped() {
    for groups in both(2) {
        let dropped = std::sync::Barrier::new(2);
        on_threads(groups, |group| {
            let mut values = [1.0];
            if group.rank() == 1 {
                let mut sum = Box::pin(group.all_reduce_sum([&mut values]));
                poll_once(&mut sum);
                drop(sum);
                dropped.wait();
                return;
            }
            dropped.wait();
            let error =
                block_on(group.all_reduce_sum([&mut values])).expect_err("a rank that left");
            assert_eq!(
                error.to_string(),
                "all_reduce_sum, exchange 0 of the group: rank 1 failed: its call was \
                 dropped while it waited for the other ranks"
            );
            assert_eq!(values, [1.0]);
        });
    }
}

#[test]
fn a_future_that_is_dropped_while_it_waits_for_an_earlier_one_tells_the_others() {
    for groups in both(2) {
        let dropped = std::sync::Barrier::new(2);
        on_threads(groups, |group| {
            let mut values = [1.0];
            let mut others = [2.0];
            if group.rank() == 1 {
                let mut first = Box::pin(group.all_reduce_sum([&mut values]));
                poll_once(&mut first);
                let mut second = Box::pin(group.broadcast(0, &mut others));
                poll_once(&mut second);
                drop(second);
                dropped.wait();
                block_on(first).expect_err("a group that has failed");
                return;
            }
            dropped.wait();
            let error = block_on(group.all_reduce_sum([&mut values]))
                .expect_err("a rank that dropped a call");
            let Error::Exchange(ExchangeError::Aborted { rank: 1, reason, .. }) = &error else {
                panic!("{error}")
            };
            assert_eq!(
                reason,
                "broadcast, exchange 1 of the group: its call was dropped before it ended"
            );
        });
    }
}
