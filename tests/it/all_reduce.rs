//! Values of a program's own that the ranks of a process group exchange: sums in the bits of one
//! tree over ranks, messages, the values of one rank, and waiting for each other.
//!
//! `faults` lets ranks ask for different things, or not come.

mod faults;

use crate::common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{join, join3};
use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::error::GroupError;
use syncbn::{BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};

use common::all_reduce_groups;
use common::transport::Tapped;
use common::{Random, on_threads, process_groups};

/// Nobody waits in vain here, save where a test says so.
const LONG: Duration = Duration::from_secs(20);

/// The groups of both kinds of transport.
fn both(world_size: usize) -> [Vec<ProcessGroup>; 2] {
    [process_groups(world_size, LONG), all_reduce_groups(world_size, LONG)]
}

/// Values of a rank, every other one ±2⁷⁰: those cancel, and take along what was added to them
/// before.
fn values(rank: usize, count: usize) -> Vec<f32> {
    let mut random = Random::new(11 + rank as u64);
    let large = 2f32.powi(70);
    (0..count)
        .map(|_| [large, -large, random.next() as f32, random.next() as f32][random.below(4)])
        .collect()
}

/// The sum over ranks along the canonical tree: the left side is the largest power of two of ranks
/// that leaves some.
fn tree_sum(values: &[f64]) -> f64 {
    if let [value] = values {
        return *value;
    }
    let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
    tree_sum(left) + tree_sum(right)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_value_is_summed_in_f64_along_the_tree_and_rounded_once() {
    const COUNT: usize = 1001;
    for world_size in 1..=5 {
        let ranks: Vec<Vec<f32>> = (0..world_size).map(|rank| values(rank, COUNT)).collect();
        let wide =
            |index: usize| ranks.iter().map(|rank| f64::from(rank[index])).collect::<Vec<_>>();
        let expected: Vec<f32> = (0..COUNT).map(|index| tree_sum(&wide(index)) as f32).collect();
        let in_line: Vec<f32> =
            (0..COUNT).map(|index| wide(index).iter().sum::<f64>() as f32).collect();
        let narrow: Vec<f32> =
            (0..COUNT).map(|index| ranks.iter().map(|rank| rank[index]).sum()).collect();
        assert!(world_size < 4 || expected != in_line, "values that show the order of additions");
        assert!(world_size < 3 || expected != narrow, "values that show the rounding");
        for groups in both(world_size) {
            let found = on_threads(groups, |group| {
                let mut own = values(group.rank(), COUNT);
                let (first, rest) = own.split_at_mut(400);
                let (none, rest) = rest.split_at_mut(0);
                block_on(group.all_reduce_sum([first, none, rest])).expect("a sum");
                own
            });
            assert!(found.iter().all(|found| bits(found) == bits(&expected)), "{world_size} ranks");
        }
    }
}

#[test]
fn slices_may_be_given_as_anything_that_holds_values() {
    for groups in both(2) {
        on_threads(groups, |group| {
            let rank = group.rank() as f32;
            let mut vectors = [vec![rank; 3], vec![], vec![10.0 * rank]];
            block_on(group.all_reduce_sum(&mut vectors)).expect("a sum");
            assert_eq!(vectors, [vec![1.0; 3], vec![], vec![10.0]]);
            let mut array = [1.0, rank];
            block_on(group.all_reduce_sum([&mut array])).expect("a sum");
            assert_eq!(array, [2.0, 1.0]);
            block_on(group.all_reduce_sum::<[f32]>([])).expect("a sum of nothing");
            let mut odd = [f32::NAN, f32::INFINITY, -0.0];
            block_on(group.all_reduce_sum([&mut odd[..]])).expect("a sum");
            assert!(
                odd[0].is_nan()
                    && odd[1] == f32::INFINITY
                    && odd[2].to_bits() == (-0.0f32).to_bits()
            );
        });
    }
}

#[test]
fn messages_of_any_length_arrive_in_rank_order() {
    for groups in both(3) {
        on_threads(groups, |group| {
            let message = vec![group.rank() as u8; 1000 * group.rank()];
            let gathered = block_on(group.all_gather(&message)).expect("messages");
            let expected: Vec<Arc<[u8]>> =
                (0..3).map(|rank| vec![rank as u8; 1000 * rank].into()).collect();
            assert_eq!(gathered, expected);
        });
    }
}

#[test]
fn a_broadcast_gives_all_ranks_the_bits_of_one() {
    for groups in both(4) {
        on_threads(groups, |group| {
            for from in 0..4 {
                let mut values =
                    [f32::from_bits(0x7fa0_0000 + group.rank() as u32), group.rank() as f32, -0.0];
                block_on(group.broadcast(from, &mut values)).expect("a broadcast");
                assert_eq!(
                    bits(&values),
                    [0x7fa0_0000 + from as u32, (from as f32).to_bits(), 0x8000_0000]
                );
            }
            block_on(group.broadcast(0, &mut [])).expect("a broadcast of nothing");
        });
    }
}

#[test]
fn a_broadcast_from_a_rank_that_does_not_exist_is_refused_on_all_ranks_and_the_group_goes_on() {
    for world_size in 1..=3 {
        for groups in both(world_size) {
            on_threads(groups, |group| {
                let mut values = [group.rank() as f32];
                let error =
                    block_on(group.broadcast(world_size, &mut values)).expect_err("no such rank");
                let call = "broadcast";
                let rank = world_size;
                let expected = GroupError::OutOfRange { call, list: None, rank, world_size };
                assert_eq!(error, Error::Group(expected));
                assert_eq!((values, group.failure()), ([group.rank() as f32], None));
                block_on(group.broadcast(world_size - 1, &mut values)).expect("the group goes on");
                assert_eq!(values, [(world_size - 1) as f32]);
            });
        }
    }
}

#[test]
fn a_barrier_waits_for_all_ranks() {
    for groups in both(3) {
        let come = AtomicUsize::new(0);
        on_threads(groups, |group| {
            for round in 1..=20 {
                if group.rank() == round % 3 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                come.fetch_add(1, Ordering::SeqCst);
                block_on(group.barrier()).expect("a barrier");
                assert!(come.load(Ordering::SeqCst) >= 3 * round, "round {round}");
            }
        });
    }
}

#[test]
fn calls_that_are_awaited_at_once_meet_in_their_order() {
    for groups in both(3) {
        on_threads(groups, |group| {
            let host = Device::host();
            let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()])
                .unwrap()
                .in_group(&group)
                .unwrap();
            for round in 0..50 {
                let rank = group.rank() as f32;
                let mut a = [rank, round as f32];
                let mut b = [1.0];
                let (of_a, of_b) =
                    block_on(join(group.all_reduce_sum([&mut a]), group.all_reduce_sum([&mut b])));
                assert_eq!((of_a, of_b, a, b), (Ok(()), Ok(()), [3.0, 3.0 * round as f32], [3.0]));
                let x = host.upload(&[2, 1], &[rank, rank + 1.0]).unwrap();
                let mut c = [rank];
                let calls =
                    join3(group.barrier(), layer.forward_train(&x), group.all_reduce_sum([&mut c]));
                let (barrier, forward, reduced) = block_on(calls);
                assert_eq!((barrier, reduced, c), (Ok(()), Ok(()), [3.0]));
                assert_eq!(
                    forward.expect("forward").saved.statistics().unwrap().channels()[0].mean,
                    1.5
                );
            }
        });
    }
}

#[test]
fn a_group_within_a_group_reduces_by_itself() {
    on_threads(process_groups(4, LONG), |group| {
        let pair = block_on(group.partition(&[vec![0, 2], vec![1, 3]])).expect("a partition");
        let mut values = [group.rank() as f32];
        block_on(pair.all_reduce_sum([&mut values])).expect("a sum");
        assert_eq!(values, [if group.rank().is_multiple_of(2) { 2.0 } else { 4.0 }]);
    });
}

#[test]
fn a_group_of_one_sends_nothing() {
    let refuse = |_| panic!("a message of a group of one");
    let inner = LocalGroup::ranks(1).remove(0);
    for group in [ProcessGroup::single(), ProcessGroup::new(Tapped::new(inner, refuse))] {
        let mut values = [1.5, -0.0];
        block_on(group.all_reduce_sum([&mut values])).expect("a sum");
        block_on(group.broadcast(0, &mut values)).expect("a broadcast");
        block_on(group.barrier()).expect("a barrier");
        assert_eq!(block_on(group.all_gather(b"own")).expect("messages"), [Arc::from(&b"own"[..])]);
        assert_eq!(bits(&values), bits(&[1.5, -0.0]));
    }
}

#[test]
fn the_futures_may_be_awaited_on_any_thread() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    let group = ProcessGroup::single();
    let mut values = [vec![1.0f32]];
    // Nothing of the iterator is kept.
    let pointer = std::rc::Rc::new(());
    let iterator = values.iter_mut().inspect(|_| assert!(std::rc::Rc::strong_count(&pointer) == 1));
    block_on(assert_send(group.all_reduce_sum(iterator))).unwrap();
    block_on(assert_send(group.broadcast(0, &mut values[0]))).unwrap();
    block_on(assert_send(group.all_gather(&[]))).unwrap();
    block_on(assert_send(group.barrier())).unwrap();
}
