//! Process groups: both forms of making them, layers in them against the definition per group, and
//! wrong wishes, which every rank must find alike.
//!
//! `wishes` asks for groups that cannot be made, `unmade` for those that one rank cannot enter,
//! `start` lets ranks begin with different states and shares one, `loaded` loads states on some
//! ranks alone, `settings` changes settings of living layers, `refused` asks of layers what their
//! process group forbids, `two_groups` lets a joint call span two groups, `twice` makes two passes
//! of one layer at once, `spread` puts several devices into each process, `differing` sets ranks up
//! differently, `at_once` makes two groups at once.

mod at_once;
mod differing;
mod loaded;
mod moved;
mod refused;
mod settings;
mod spread;
mod start;
mod twice;
mod two_groups;
mod unmade;
mod wishes;

use crate::common;

use std::time::Duration;

use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm, error::ExchangeError};

use common::*;

/// Nobody waits in vain here, save where a test says so.
const LONG: Duration = Duration::from_secs(20);
const CHANNELS: usize = 3;

/// What a layer of each rank makes of a rank's batch: y and the running statistics.
type Found = Vec<(Vec<f32>, RunningStats)>;

fn normalize(group: &ProcessGroup, batch: &Batch) -> (Vec<f32>, RunningStats) {
    let host = Device::host();
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [host.clone()])
        .unwrap()
        .in_group(group)
        .unwrap();
    let y = pollster::block_on(layer.forward_train(&batch.upload(&host))).expect("forward").output;
    (read(&[y]).remove(0), layer.running_stats().unwrap())
}

/// Batches of different sizes, each of at least two values so that a rank may be alone.
fn batches(world_size: usize, seed: u64) -> Vec<Batch> {
    let mut random = Random::new(seed);
    (0..world_size)
        .map(|rank| Batch::random(&[2 + rank % 3, CHANNELS, 1 + rank % 2], &mut random))
        .collect()
}

/// Whether the ranks of each list have y of the definition of their batches together, and the same
/// running statistics.
fn check(batches: &[Batch], found: &Found, groups: &[&[usize]]) -> Result<(), String> {
    for ranks in groups {
        let of_group: Vec<Batch> = ranks.iter().map(|&rank| batches[rank].clone()).collect();
        let y: Vec<Vec<f32>> = ranks.iter().map(|&rank| found[rank].0.clone()).collect();
        let expected = definition(&of_group, None, BatchNormConfig::torch(CHANNELS).eps).outputs;
        compare(&of_group, &y, &expected, TOLERANCE_ULP)
            .map_err(|what| format!("{ranks:?}: {what}"))?;
        if ranks.iter().any(|&rank| found[rank].1 != found[ranks[0]].1) {
            return Err(format!("{ranks:?}: running statistics differ"));
        }
    }
    Ok(())
}

#[test]
fn both_forms_make_the_same_groups_and_layers_normalize_over_each() {
    let groups: [&[usize]; 4] = [&[0, 2, 5], &[1, 4], &[3], &[6]];
    // The last rank is in no list; the order within a list is of no meaning.
    let lists = [vec![5, 0, 2], vec![1, 4], vec![3]];
    let batches = batches(7, 1);
    let found: Vec<[_; 2]> = on_threads(process_groups(7, LONG), |group| {
        let own = groups.iter().find(|ranks| ranks.contains(&group.rank())).unwrap();
        let partition = pollster::block_on(group.partition(&lists)).expect("a partition");
        // Every member has an order of its own.
        let mut ordered = own.to_vec();
        ordered.rotate_left(group.rank() % own.len());
        let subgroup = pollster::block_on(group.subgroup(&ordered)).expect("a subgroup");
        [partition, subgroup].map(|part| {
            assert_eq!((part.world_ranks(), part.world_size()), (*own, own.len()));
            assert_eq!(part.world_ranks()[part.rank()], group.rank());
            assert_eq!(part.deadline(), LONG);
            normalize(&part, &batches[group.rank()])
        })
    });
    for form in 0..2 {
        let found: Found = found.iter().map(|forms| forms[form].clone()).collect();
        check(&batches, &found, &groups).unwrap();
        // The check must object to another partition.
        assert!(check(&batches, &found, &[&[0, 1], &[2, 4]]).is_err());
    }
}

#[test]
fn an_empty_partition_lets_every_rank_normalize_by_itself() {
    let batches = batches(3, 2);
    let found = on_threads(process_groups(3, LONG), |group| {
        let part = pollster::block_on(group.partition(&[])).expect("a partition");
        assert_eq!(
            (part.rank(), part.world_size(), part.world_ranks()),
            (0, 1, &[group.rank()][..])
        );
        normalize(&part, &batches[group.rank()])
    });
    check(&batches, &found, &[&[0], &[1], &[2]]).unwrap();
}

#[test]
fn a_group_that_others_were_made_of_may_be_dropped_and_disjoint_groups_do_not_wait_for_each_other()
{
    let batches = batches(4, 3);
    let found = on_threads(process_groups(4, LONG), |group| {
        let rank = group.rank();
        let part =
            pollster::block_on(group.partition(&[vec![0, 1], vec![2, 3]])).expect("a partition");
        drop(group);
        // The first group takes many steps while the second takes one.
        for _ in 0..if rank < 2 { 50 } else { 0 } {
            normalize(&part, &batches[rank]);
        }
        normalize(&part, &batches[rank])
    });
    check(&batches, &found, &[&[0, 1], &[2, 3]]).unwrap();
}

#[test]
fn groups_of_groups_work_at_the_same_time_as_those_they_were_made_of() {
    let batches = batches(8, 4);
    let found: Vec<[_; 3]> = on_threads(process_groups(8, LONG), |group| {
        let rank = group.rank();
        let half = pollster::block_on(group.partition(&[vec![0, 1, 2, 3], vec![4, 5, 6, 7]]))
            .expect("a partition");
        // Ranks of the half, counted from 0 again.
        let pair = if half.rank() < 2 { [0, 1] } else { [2, 3] };
        let pair = pollster::block_on(half.subgroup(&pair)).expect("a subgroup");
        assert_eq!(pair.world_ranks(), [rank / 2 * 2, rank / 2 * 2 + 1]);
        [&pair, &group, &half].map(|group| normalize(group, &batches[rank]))
    });
    let level = |level: usize| found.iter().map(|levels| levels[level].clone()).collect::<Found>();
    check(&batches, &level(0), &[&[0, 1], &[2, 3], &[4, 5], &[6, 7]]).unwrap();
    check(&batches, &level(1), &[&[0, 1, 2, 3, 4, 5, 6, 7]]).unwrap();
    check(&batches, &level(2), &[&[0, 1, 2, 3], &[4, 5, 6, 7]]).unwrap();
}

#[test]
fn a_late_rank_of_a_subgroup_is_named_by_its_rank_in_the_outermost_group_and_other_groups_go_on() {
    let deadline = Duration::from_millis(500);
    let batches = batches(6, 5);
    on_threads(process_groups(6, deadline), |group| {
        let rank = group.rank();
        let part = pollster::block_on(group.partition(&[vec![0, 1, 2], vec![3, 4, 5]]))
            .expect("a partition");
        let host = Device::host();
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [host.clone()])
            .unwrap()
            .in_group(&part)
            .unwrap();
        let x = batches[rank].upload(&host);
        for step in 0..3 {
            if (rank, step) == (4, 2) {
                std::thread::sleep(2 * deadline);
            }
            match (rank, step, pollster::block_on(layer.forward_train(&x))) {
                (3.., 2, Err(Error::Exchange(ExchangeError::Late { ranks, .. }))) => {
                    assert_eq!(ranks, [4])
                }
                (0..3, _, Ok(_)) | (3.., 0..2, Ok(_)) => {}
                (.., unexpected) => panic!("rank {rank}, step {step}: {unexpected:?}"),
            }
        }
        assert_eq!((part.failure().is_some(), group.failure()), (rank >= 3, None));
    });
}
