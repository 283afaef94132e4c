//! The second step among ranks: started and awaited later, several layers in one message, ranks
//! that have run out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use syncbn::collective::LocalGroup;
use syncbn::error::ExchangeError;
use syncbn::stats::{GlobalGradientSums, LocalGradientSums};
use syncbn::{ProcessGroup, Tensor, joint};

use super::common::all_reduce_groups;
use super::common::transport::Tapped;
use super::*;

/// Nobody waits in vain here.
const LONG: Duration = Duration::from_secs(20);

fn layer(group: &ProcessGroup) -> SyncBatchNorm {
    SyncBatchNorm::new(BatchNormConfig::torch(1), [Device::host()])
        .unwrap()
        .in_group(group)
        .unwrap()
}

fn column(values: &[f32]) -> Tensor {
    Device::host().upload(&[values.len(), 1], values).unwrap()
}

fn numbered(groups: Vec<ProcessGroup>) -> Vec<(usize, ProcessGroup)> {
    groups.into_iter().enumerate().collect()
}

#[test]
fn a_rank_without_a_batch_goes_on_with_the_others_forward_and_backward() {
    for groups in [process_groups(2, LONG), all_reduce_groups(2, LONG)] {
        let found = on_threads(numbered(groups), |(rank, group)| {
            let bn = layer(&group);
            let mut gradients = Vec::new();
            for step in 0..3 {
                // Rank 1 has one batch, rank 0 three.
                if rank == 0 || step == 0 {
                    let x = column(&[rank as f32, 2.0 + step as f32, 4.0]);
                    let forward = block_on(bn.forward_train(&x)).unwrap();
                    let backward =
                        block_on(bn.backward(&forward.saved, Backward::of(&x, &x))).unwrap();
                    gradients.extend(block_on(backward.input.to_vec()).unwrap());
                } else {
                    block_on(bn.synchronize(LocalStatistics::empty(1))).unwrap();
                    block_on(bn.synchronize(LocalGradientSums::empty(1))).unwrap();
                }
            }
            (bn.running_stats().unwrap(), gradients)
        });
        assert_eq!(found[0].0, found[1].0, "running statistics are updated on every rank");
        assert_eq!(found[0].0.num_batches_tracked, 3);
        // Alone with its batch, rank 0 gets what one device gets.
        let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [Device::host()]).unwrap();
        let x = column(&[0.0, 4.0, 4.0]);
        let forward = block_on(bn.forward_train(&x)).unwrap();
        let alone = block_on(bn.backward(&forward.saved, Backward::of(&x, &x))).unwrap();
        assert_eq!(bits(&[found[0].1[6..].to_vec()]), bits(&read(&[alone.input])));
    }
}

#[test]
fn an_exchange_that_is_started_is_on_its_way_while_other_work_is_done() {
    let sent = Arc::new(AtomicUsize::new(0));
    let groups = LocalGroup::ranks(2).into_iter().map(|rank| {
        let sent = sent.clone();
        let tapped = Tapped::new(rank, move |message| {
            sent.fetch_add(1, Ordering::SeqCst);
            message
        });
        ProcessGroup::new(tapped).with_deadline(LONG)
    });
    let layers: Vec<SyncBatchNorm> = groups.map(|group| layer(&group)).collect();
    let local = |values: &[f32]| block_on(layers[0].local_statistics(&column(values))).unwrap();
    let waiting = layers[0].synchronize(local(&[0.0, 2.0]));
    assert_eq!(sent.load(Ordering::SeqCst), 0, "it begins when it is started or polled");
    let started = waiting.start();
    assert_eq!(sent.load(Ordering::SeqCst), 1);
    // Evaluation communicates with nobody.
    block_on(layers[0].forward_eval(&column(&[7.0, 8.0]))).unwrap();
    let other = layers[1].synchronize(local(&[4.0, 6.0])).start();
    let globals = [block_on(started).unwrap(), block_on(other).unwrap()];
    assert_eq!(globals[0], globals[1]);
    assert_eq!(globals[0].channels()[0], Moments { count: 4, mean: 3.0, m2: 20.0 });
    assert_eq!(layers[0].running_stats(), layers[1].running_stats());
}

#[test]
fn exchanges_that_are_started_keep_their_order_whichever_is_awaited_first() {
    let found = on_threads(numbered(process_groups(2, LONG)), |(rank, group)| {
        let a = layer(&group);
        let b = layer(&group);
        let local = |values: &[f64]| Local::of_rank([Moments::from_values(values.iter().copied())]);
        let first = a.synchronize(local(&[rank as f64, 1.0])).start();
        let second = b.synchronize(local(&[10.0 + rank as f64, 1.0])).start();
        let (second, first) = block_on(futures::future::join(second, first));
        (first.unwrap(), second.unwrap())
    });
    assert_eq!(found[0], found[1]);
    assert_eq!((found[0].0.channels()[0].mean, found[0].1.channels()[0].mean), (0.75, 5.75));
}

#[test]
fn an_exchange_that_never_began_leaves_the_group_alone_and_one_that_is_dropped_tells_it() {
    let found = on_threads(numbered(process_groups(2, LONG)), |(rank, group)| {
        let bn = layer(&group);
        drop(bn.synchronize(LocalStatistics::empty(1)));
        let local = || Local::of_rank([Moments::from_values([1.0, rank as f64])]);
        block_on(bn.synchronize(local())).expect("nothing was begun");
        if rank == 1 {
            drop(bn.synchronize(local()).start());
            return None;
        }
        // What it said before it was dropped has come; the next exchange is notified.
        let results = [block_on(bn.synchronize(local())), block_on(bn.synchronize(local()))];
        results.into_iter().find_map(Result::err)
    });
    let error = found[0].clone().expect("an error");
    let found = matches!(
        error,
        Error::Exchange(
            ExchangeError::Aborted { rank: 1, .. } | ExchangeError::Left { rank: 1, .. }
        )
    );
    assert!(found, "{error}");
}

#[test]
fn several_layers_synchronize_in_one_message_with_the_bits_of_each() {
    for joint_groups in [process_groups(3, LONG), all_reduce_groups(3, LONG)] {
        let groups: Vec<_> =
            joint_groups.into_iter().zip(process_groups(3, LONG)).enumerate().collect();
        let found = on_threads(groups, |(rank, (joint, single))| {
            let mut random = Random::new(rank as u64);
            let locals: Vec<LocalStatistics> = (0..3)
                .map(|_| Local::of_rank([Moments::from_values((0..4).map(|_| random.next()))]))
                .collect();
            let layers: Vec<_> = (0..3).map(|_| layer(&joint)).collect();
            let globals = block_on(joint::synchronize(layers.iter().zip(locals.clone()))).unwrap();
            let alone: Vec<_> = (0..3).map(|_| layer(&single)).collect();
            let each: Vec<GlobalStatistics> = alone
                .iter()
                .zip(locals)
                .map(|(bn, local)| block_on(bn.synchronize(local)).unwrap())
                .collect();
            assert_eq!(globals, each);
            let running = |layers: &[SyncBatchNorm]| {
                layers.iter().map(SyncBatchNorm::running_stats).collect::<Vec<_>>()
            };
            assert_eq!(running(&layers), running(&alone));
            let sums = |_| {
                LocalGradientSums::of_rank([syncbn::stats::GradientSums {
                    sum_dy: 1.0,
                    sum_dy_xmu: 2.0,
                }])
            };
            let sums: Vec<GlobalGradientSums> =
                block_on(joint::synchronize(layers.iter().zip((0..3).map(sums)))).unwrap();
            assert_eq!(sums[2].channels()[0].sum_dy, 3.0);
            globals
        });
        assert_eq!(found[0], found[2]);
    }
}
