//! Several devices in each process: the same bits as one group over all devices, however they are spread.

use syncbn::stats::RunningStats;
use syncbn::{AffineGradient, ConfigError, Device, DeviceGroup, Error, ExchangeError, SyncBatchNormConfig};

use crate::common::{Batch, Kind, Parameters, Random, bits, on_threads, process_groups, read, upload};
use crate::{CHANNELS, LONG};

/// Bits of y and of all gradients per rank, and running statistics.
type Outcome = (Vec<Vec<u32>>, RunningStats);

/// Two steps of the ranks `first ..` of all, one for each device of the group.
fn train(group: &mut DeviceGroup, first: usize, batches: &[Batch], gradients: &[Batch]) -> Outcome {
    let mut random = Random(9);
    Parameters::random(CHANNELS, &mut random).set(group);
    let ranks = first..first + group.world_size();
    let mut found: Vec<Vec<u32>> = Vec::new();
    for _ in 0..2 {
        let (x, g) = (upload(group, &batches[ranks.clone()]), upload(group, &gradients[ranks.clone()]));
        let forward = pollster::block_on(group.forward_train(&x)).expect("forward");
        let backward = pollster::block_on(group.backward(&forward.saved, &x, &g)).expect("backward");
        let tensors = [
            read(&forward.outputs),
            read(&backward.grad_inputs),
            read(&backward.grad_weights.unwrap()),
            read(&backward.grad_biases.unwrap()),
        ];
        for rank in 0..group.world_size() {
            found.push(tensors.iter().flat_map(|tensors| bits(&tensors[rank..=rank]).concat()).collect());
        }
    }
    // Rank by rank instead of step by step.
    let world_size = group.world_size();
    let of_rank =
        |rank: usize| -> Vec<u32> { found.iter().skip(rank).step_by(world_size).flatten().copied().collect() };
    ((0..world_size).map(of_rank).collect(), group.running_stats().unwrap().clone())
}

/// All ways to write `total` as a sum of counts of at least 1.
fn compositions(total: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); usize::from(total == 0)];
    for first in 1..=total {
        all.extend(compositions(total - first).into_iter().map(|rest| [vec![first], rest].concat()));
    }
    all
}

fn same_bits(kind: Kind, total: usize, spreads: &[Vec<usize>], affine_gradient: AffineGradient) {
    let config = SyncBatchNormConfig::torch(CHANNELS).with_affine_gradient(affine_gradient);
    let mut random = Random(total as u64);
    let dims: Vec<[usize; 3]> = (0..total).map(|rank| [rank % 3, CHANNELS, 2 + rank]).collect();
    let [batches, gradients] =
        [(); 2].map(|()| dims.iter().map(|dims| Batch::random(dims, &mut random)).collect::<Vec<_>>());
    let devices = kind.devices(total);
    let mut whole = DeviceGroup::new(config.clone(), devices.clone()).unwrap();
    let expected = train(&mut whole, 0, &batches, &gradients);
    for spread in spreads {
        let first = |process: usize| spread[..process].iter().sum::<usize>();
        let found = on_threads(process_groups(spread.len(), LONG), |group| {
            let first = first(group.rank());
            let own = devices[first..first + spread[group.rank()]].to_vec();
            let mut part = pollster::block_on(DeviceGroup::in_group(config.clone(), own, &group)).expect("a group");
            train(&mut part, first, &batches, &gradients)
        });
        for (process, (ranks, running)) in found.iter().enumerate() {
            assert_eq!(*running, expected.1, "{spread:?}, process {process}");
            let expected = &expected.0[first(process)..first(process) + spread[process]];
            assert!(ranks == expected, "{spread:?}, process {process}: other bits");
        }
    }
}

#[test]
fn devices_in_one_process_or_in_several_give_the_same_bits() {
    for total in [4, 5] {
        let spreads = compositions(total);
        assert_eq!(spreads.len(), 1 << (total - 1));
        for affine_gradient in [AffineGradient::Local, AffineGradient::GroupSum, AffineGradient::GroupMean] {
            same_bits(Kind::Host, total, &spreads, affine_gradient);
        }
    }
}

#[test]
fn gpus_and_the_host_in_several_processes_give_the_same_bits_as_in_one() {
    same_bits(Kind::Mixed, 4, &[vec![1, 3], vec![2, 2], vec![3, 1], vec![1, 1, 2]], AffineGradient::Local);
}

#[test]
fn a_process_without_devices_is_refused_and_the_others_learn_that_it_left() {
    on_threads(process_groups(3, LONG), |group| {
        let config = SyncBatchNormConfig::torch(CHANNELS);
        let devices = vec![Device::host(); usize::from(group.rank() != 1)];
        let made = pollster::block_on(DeviceGroup::in_group(config, devices, &group));
        if group.rank() == 1 {
            assert!(matches!(made, Err(Error::Config(ConfigError::NoDevices))), "{made:?}");
            return;
        }
        let mut made = made.expect("the others have devices");
        let x = [Device::host().zeros(&[2, CHANNELS]).unwrap()];
        let error = pollster::block_on(made.forward_train(&x)).expect_err("a process is gone");
        assert!(matches!(error, Error::Exchange(ExchangeError::Left { rank: 1, .. })), "{error}");
    });
}
