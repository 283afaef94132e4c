//! Layers of ranks that go on: their state, their bits, and contexts of the group before.

use std::thread;

use pollster::block_on;
use syncbn::error::{ArgumentError, ExchangeError};
use syncbn::stats::RunningStats;
use syncbn::{Backward, BatchNormConfig, Device, Error, SyncBatchNorm};

use super::{CHANNELS, LONG, batch, exchange_error, layer, step};
use crate::common::{adapter, all_reduce_groups, on_threads, own_device, process_groups};

/// Rank 2 of four panics before step 2; the others go on, with the bits of three that begin there.
#[test]
fn three_of_four_go_on_as_a_group_of_three_would() {
    type Found = (Vec<[Vec<u32>; 2]>, RunningStats);
    for groups in [process_groups(4, LONG), all_reduce_groups(4, LONG)] {
        let ranks: Vec<Option<(RunningStats, Found)>> = thread::scope(|scope| {
            let threads = groups.into_iter().map(|group| {
                scope.spawn(move || {
                    let mut bn = layer(&group, &Device::host());
                    let rank = group.rank();
                    (0..2).for_each(|number| drop(step(&bn, rank, number).unwrap()));
                    assert!(rank != 2, "the rank that is lost");
                    let before = bn.running_stats().unwrap();
                    let error = step(&bn, rank, 2).unwrap_err();
                    let panicked =
                        ExchangeError::Left { at: String::new(), rank: 2, panicked: true };
                    assert!(same_kind(exchange_error(&error), &panicked), "{error}");
                    assert_eq!(bn.running_stats().unwrap(), before, "the step has failed");
                    let group = block_on(group.survivors(LONG)).unwrap();
                    assert_eq!(group.world_ranks(), [0, 1, 3]);
                    assert_eq!(group.world_ranks()[group.rank()], rank);
                    bn = bn.in_group(&group).unwrap();
                    let steps = (2..5).map(|number| step(&bn, rank, number).unwrap()).collect();
                    (before, (steps, bn.running_stats().unwrap()))
                })
            });
            threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().ok()).collect()
        });
        let [Some(_), Some(_), None, Some(_)] = &ranks[..] else { panic!("rank 2 alone is lost") };
        let survivors: Vec<_> = ranks.into_iter().flatten().collect();
        let before = survivors[0].0.clone();
        let fresh = on_threads(process_groups(3, LONG), |group| {
            let mut bn = layer(&group, &Device::host());
            let rank = [0, 1, 3][group.rank()];
            bn.set_running_stats(before.clone()).unwrap();
            let steps = (2..5).map(|number| step(&bn, rank, number).unwrap()).collect();
            (steps, bn.running_stats().unwrap())
        });
        let found: Vec<Found> = survivors.into_iter().map(|(_, found)| found).collect();
        assert_eq!(found, fresh);
    }
}

fn same_kind(found: &ExchangeError, expected: &ExchangeError) -> bool {
    match (found, expected) {
        (
            ExchangeError::Left { rank, panicked, .. },
            ExchangeError::Left { rank: other, panicked: also, .. },
        ) => rank == other && panicked == also,
        _ => false,
    }
}

/// A new rank comes in place of one that is gone, and begins with the state of the others.
#[test]
fn a_new_rank_joins_with_the_state_of_the_survivors() {
    let found = on_threads(process_groups(2, LONG), |group| {
        let mut bn = layer(&group, &Device::host());
        if group.rank() == 0 {
            bn.set_parameters(Some(&[2.0; CHANNELS]), None).unwrap();
        }
        block_on(bn.broadcast_state(0)).unwrap();
        step(&bn, group.rank(), 0).unwrap();
        (block_on(bn.weight(0).unwrap().to_vec()).unwrap(), bn.running_stats().unwrap())
    });
    assert_eq!(found[0].0, [2.0; CHANNELS]);
    assert_eq!(found[0], found[1]);
}

/// A layer over a GPU and the host whose GPU is lost goes on over the host with its state.
#[test]
fn a_layer_goes_on_without_a_device_that_is_lost() {
    let (gpu, queue) = own_device(&adapter(), |_| {});
    let devices = [Device::from_wgpu(gpu.clone(), queue).unwrap(), Device::host()];
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), devices.clone()).unwrap();
    let x: Vec<_> = devices
        .iter()
        .enumerate()
        .map(|(rank, device)| device.upload(&batch(rank, 0).dims, &batch(rank, 0).values).unwrap())
        .collect();
    block_on(bn.forward_train(&x)).unwrap();
    let before = bn.running_stats().unwrap();
    gpu.destroy();
    assert!(matches!(block_on(bn.forward_train(&x)).unwrap_err(), Error::Gpu(_)));
    assert_eq!(bn.running_stats().unwrap(), before);
    let bn = SyncBatchNorm::synchronized(bn.into_local().split_off(1)).unwrap();
    assert_eq!(bn.running_stats().unwrap(), before);
    step(&bn, 1, 1).unwrap();
    assert_eq!(bn.running_stats().unwrap().num_batches_tracked, 2);
}

/// What was saved before is of other ranks: its sums are not those of the new group.
#[test]
fn a_context_saved_before_is_refused_in_the_new_group() {
    let found = on_threads(process_groups(3, LONG), |group| {
        let mut bn = layer(&group, &Device::host());
        let batch = batch(group.rank(), 0);
        let x = Device::host().upload(&batch.dims, &batch.values).unwrap();
        let forward = block_on(bn.forward_train(&x)).unwrap();
        if group.rank() == 2 {
            return None;
        }
        assert!(block_on(bn.forward_train(&x)).is_err(), "rank 2 has left");
        let group = block_on(group.survivors(LONG)).unwrap();
        bn.set_group(&group).unwrap();
        let request = Backward::of(&x, &forward.output);
        Some(block_on(bn.backward(&forward.saved, request)).map(drop).unwrap_err())
    });
    let [Some(zero), Some(one), None] = &found[..] else { panic!("{found:?}") };
    assert_eq!(zero, one);
    assert!(matches!(zero, Error::Argument(ArgumentError::NotSaved { .. })), "{zero:?}");
}
