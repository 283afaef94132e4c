//! Several devices in each process: the same bits as one group over all devices, however they are
//! spread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use syncbn::collective::Collective;
use syncbn::stats::RunningStats;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Forward, ProcessGroup, SyncBatchNorm, Tensor,
    collective::LocalGroup,
    config::AffineGradient,
    error::{ConfigError, ExchangeError},
    joint,
};

use crate::common::all_reduce_groups;
use crate::common::sabotage::{Sabotage, saboteur};
use crate::common::transport::Tapped;
use crate::common::{
    Batch, Kind, Parameters, Placement, Random, bits, on_threads, process_groups, read, upload,
};
use crate::process_groups::{CHANNELS, LONG};

/// Bits of y and of all gradients per rank, and running statistics.
type Outcome = (Vec<Vec<u32>>, RunningStats);

/// Two steps of the ranks `first ..` of all, one for each device of the group.
fn train(
    layer: &mut SyncBatchNorm,
    first: usize,
    batches: &[Batch],
    gradients: &[Batch],
) -> Outcome {
    let mut random = Random::new(9);
    Parameters::random(CHANNELS, &mut random).set(layer);
    let ranks = first..first + layer.devices().len();
    let mut found: Vec<Vec<u32>> = Vec::new();
    for _ in 0..2 {
        let x = upload(layer, &batches[ranks.clone()]);
        let g = upload(layer, &gradients[ranks.clone()]);
        let forward = pollster::block_on(layer.forward_train(&x)).expect("forward");
        let backward = pollster::block_on(layer.backward(&forward.saved, Backward::of(&x, &g)))
            .expect("backward");
        let tensors = [
            read(&forward.output),
            read(&backward.input),
            read(&backward.weight.unwrap()),
            read(&backward.bias.unwrap()),
        ];
        for rank in 0..layer.devices().len() {
            found.push(
                tensors.iter().flat_map(|tensors| bits(&tensors[rank..=rank]).concat()).collect(),
            );
        }
    }
    // Rank by rank instead of step by step.
    let world_size = layer.devices().len();
    let of_rank = |rank: usize| -> Vec<u32> {
        found.iter().skip(rank).step_by(world_size).flatten().copied().collect()
    };
    ((0..world_size).map(of_rank).collect(), layer.running_stats().unwrap())
}

/// All ways to write `total` as a sum of counts of at least 1.
fn compositions(total: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); usize::from(total == 0)];
    for first in 1..=total {
        all.extend(
            compositions(total - first).into_iter().map(|rest| [vec![first], rest].concat()),
        );
    }
    all
}

fn same_bits(kind: Kind, total: usize, spreads: &[Vec<usize>], affine_gradient: AffineGradient) {
    let config = BatchNormConfig::torch(CHANNELS).with_affine_gradient(affine_gradient);
    let mut random = Random::new(total as u64);
    let dims: Vec<[usize; 3]> = (0..total).map(|rank| [rank % 3, CHANNELS, 2 + rank]).collect();
    let [batches, gradients] = [(); 2]
        .map(|()| dims.iter().map(|dims| Batch::random(dims, &mut random)).collect::<Vec<_>>());
    let devices = kind.devices(total);
    let mut whole = SyncBatchNorm::new(config.clone(), devices.clone()).unwrap();
    let expected = train(&mut whole, 0, &batches, &gradients);
    for spread in spreads {
        let first = |process: usize| spread[..process].iter().sum::<usize>();
        for groups in [process_groups(spread.len(), LONG), all_reduce_groups(spread.len(), LONG)] {
            let found = on_threads(groups, |group| {
                let first = first(group.rank());
                let own = devices[first..first + spread[group.rank()]].to_vec();
                let mut layer =
                    SyncBatchNorm::new(config.clone(), own).unwrap().in_group(&group).unwrap();
                train(&mut layer, first, &batches, &gradients)
            });
            for (process, (ranks, running)) in found.iter().enumerate() {
                assert_eq!(*running, expected.1, "{spread:?}, process {process}");
                let expected = &expected.0[first(process)..first(process) + spread[process]];
                assert!(ranks == expected, "{spread:?}, process {process}: other bits");
            }
        }
    }
}

#[test]
fn devices_in_one_process_or_in_several_give_the_same_bits() {
    for total in [4, 5] {
        let spreads = compositions(total);
        assert_eq!(spreads.len(), 1 << (total - 1));
        for affine_gradient in
            [AffineGradient::Local, AffineGradient::GroupSum, AffineGradient::GroupMean]
        {
            same_bits(Kind::Host, total, &spreads, affine_gradient);
        }
    }
}

#[test]
fn processes_that_hold_different_numbers_of_devices_give_the_bits_of_one_that_holds_all() {
    for affine_gradient in
        [AffineGradient::Local, AffineGradient::GroupSum, AffineGradient::GroupMean]
    {
        same_bits(Kind::Host, 6, &[vec![1, 2, 3], vec![3, 1, 2], vec![2, 2, 2]], affine_gradient);
    }
}

/// A layer of so many devices on the host, and an input for each.
fn layer(
    group: &ProcessGroup,
    config: &BatchNormConfig,
    count: usize,
) -> (SyncBatchNorm, Vec<Tensor>) {
    let layer = SyncBatchNorm::new(config.clone(), vec![Device::host(); count])
        .unwrap()
        .in_group(group)
        .unwrap();
    let mut random = Random::new(group.rank() as u64);
    let batches: Vec<Batch> =
        (0..count).map(|_| Batch::random(&[2, CHANNELS], &mut random)).collect();
    let x = upload(&layer, &batches);
    (layer, x)
}

/// What the messages of rank 0 are for, by the byte of their first frame, for these calls of
/// processes with so many devices.
fn phases(spread: &[usize], merges: bool, calls: impl Fn(&ProcessGroup, usize) + Sync) -> Vec<u8> {
    let phases = Arc::new(Mutex::new(Vec::new()));
    let groups = LocalGroup::ranks(spread.len()).into_iter().map(|inner| {
        let rank = inner.rank();
        let phases = phases.clone();
        let tap = move |message: Vec<u8>| {
            if rank == 0 {
                // The phase of a frame is seven bytes behind its magic.
                let magic = message.windows(4).position(|bytes| bytes == b"SYBN").expect("a frame");
                phases.lock().unwrap().push(message[magic + 6]);
            }
            message
        };
        ProcessGroup::new(Tapped::new(inner, tap).all_reducing(merges)).with_deadline(LONG)
    });
    on_threads(groups.collect(), |group| calls(&group, spread[group.rank()]));
    phases.lock().unwrap().clone()
}

#[test]
fn making_a_layer_says_nothing_and_numbers_of_devices_are_told_once_where_they_differ() {
    let config = BatchNormConfig::torch(CHANNELS);
    let calls = |group: &ProcessGroup, count: usize| {
        let (layer, x) = layer(group, &config, count);
        for _ in 0..2 {
            let saved = pollster::block_on(layer.forward_train(&x)).expect("forward").saved;
            pollster::block_on(layer.backward(&saved, Backward::of(&x, &x))).expect("backward");
        }
    };
    for merges in [false, true] {
        assert_eq!(phases(&[1, 1, 1], merges, calls), [0, 3, 0, 3]);
        assert_eq!(phases(&[2, 2], merges, calls), [0, 3, 0, 3]);
        assert_eq!(phases(&[1, 2, 3], merges, calls), [0, 7, 0, 3, 0, 3]);
        assert_eq!(
            phases(&[1, 1, 2], merges, |group, count| drop(layer(group, &config, count))),
            [0u8; 0]
        );
    }
}

/// Two of three layers are over several devices; only one of those has not been called before.
#[test]
fn layers_of_a_joint_call_learn_their_numbers_of_devices_together() {
    let config = BatchNormConfig::torch(CHANNELS);
    let joint = |group: &ProcessGroup, count: usize| {
        let [a, b] = [(); 2].map(|()| layer(group, &config, count));
        let [mut y, mut z] = [&a, &b].map(|(layer, x)| {
            upload(layer, &vec![Batch::random(&[2, CHANNELS], &mut Random::new(1)); x.len()])
        });
        let requests = [
            (&a.0, Forward::of(&a.1).write_to(&mut y)),
            (&b.0, Forward::of(&b.1).write_to(&mut z)),
        ];
        let results = pollster::block_on(joint::forward_train(requests)).expect("a joint call");
        let expected = (2 * [1, 2, 3].iter().sum::<usize>()) as u64;
        assert!(results.iter().all(|of| of.saved.statistics().unwrap().count() == expected));
        for ((layer, x), y) in [&a, &b].into_iter().zip([y, z]) {
            assert_eq!(layer.running_stats().unwrap().num_batches_tracked, 1);
            // x is another state than at the joint call in nothing that its outputs depend on.
            let again = pollster::block_on(layer.forward_train(Forward::of(x).untracked()))
                .expect("forward");
            assert_eq!(bits(&read(&again.output)), bits(&read(&y)));
        }
    };
    for merges in [false, true] {
        assert_eq!(phases(&[1, 2, 3], merges, joint), [0, 7, 0, 1, 1]);
    }
}

#[test]
fn a_process_that_dies_while_numbers_of_devices_are_told_ends_all() {
    let config = BatchNormConfig::torch(CHANNELS);
    for (merges, culprit) in [(false, 0), (false, 2), (true, 1)] {
        let groups = LocalGroup::ranks(3).into_iter().enumerate().map(|(rank, inner)| {
            let sabotage = if rank == culprit { Sabotage::Panic } else { Sabotage::Nothing };
            ProcessGroup::new(saboteur(inner, sabotage, 1).all_reducing(merges)).with_deadline(LONG)
        });
        let errors = on_threads(groups.collect(), |group| {
            let (layer, x) = layer(&group, &config, group.rank() + 1);
            let call = AssertUnwindSafe(|| pollster::block_on(layer.forward_train(&x)).map(drop));
            let error = catch_unwind(call).ok()?.expect_err("a process that died");
            assert_eq!(layer.running_stats().unwrap().num_batches_tracked, 0);
            Some(error)
        });
        for (rank, error) in errors.into_iter().enumerate().filter(|(rank, _)| *rank != culprit) {
            let Some(Error::Exchange(ExchangeError::Aborted { rank: named, reason, .. })) = &error
            else {
                panic!("rank {rank}: {error:?}")
            };
            assert!(*named == culprit && reason.contains("it panicked"), "{error:?}");
        }
    }
}

#[test]
fn gpus_and_the_host_in_several_processes_give_the_same_bits_as_in_one() {
    same_bits(
        Kind::Mixed,
        4,
        &[vec![1, 3], vec![2, 2], vec![3, 1], vec![1, 1, 2]],
        AffineGradient::Local,
    );
}

#[test]
fn a_process_without_devices_is_refused_and_the_others_learn_that_it_left() {
    on_threads(process_groups(3, LONG), |group| {
        let config = BatchNormConfig::torch(CHANNELS);
        let devices = vec![Device::host(); usize::from(group.rank() != 1)];
        let made = SyncBatchNorm::new(config, devices);
        if group.rank() == 1 {
            assert!(matches!(made, Err(Error::Config(ConfigError::NoDevices))), "{made:?}");
            return;
        }
        let made = made.expect("the others have devices").in_group(&group).unwrap();
        let x = [Device::host().zeros(&[2, CHANNELS]).unwrap()];
        let error = pollster::block_on(made.forward_train(&x)).expect_err("a process is gone");
        assert!(matches!(error, Error::Exchange(ExchangeError::Left { rank: 1, .. })), "{error}");
    });
}
