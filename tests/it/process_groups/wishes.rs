//! Groups that cannot be made: every rank finds the same error, and the group that was asked goes
//! on.

use syncbn::{
    BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm,
    error::{ExchangeError, GroupError},
};

use crate::common::{on_threads, process_groups};
use crate::process_groups::LONG;

/// What a rank asks for.
enum Wish {
    Partition(Vec<Vec<usize>>),
    Subgroup(Vec<usize>),
}

/// The error that all ranks have found, after which the group must still make groups.
fn refused(world_size: usize, wish: impl Fn(usize) -> Wish + Sync) -> Error {
    let found = on_threads(process_groups(world_size, LONG), |group| {
        let error = match wish(group.rank()) {
            Wish::Partition(lists) => pollster::block_on(group.partition(&lists)),
            Wish::Subgroup(ranks) => pollster::block_on(group.subgroup(&ranks)),
        };
        let error = error.map(|group| group.world_ranks().to_vec());
        assert_eq!(group.failure(), None);
        let all = (0..world_size).collect();
        let whole = pollster::block_on(group.partition(&[all])).expect("the group still works");
        assert_eq!(whole.world_size(), world_size);
        error.expect_err("a wish that is refused")
    });
    assert!(found.iter().all(|error| *error == found[0]), "{found:?}");
    found[0].clone()
}

#[test]
fn a_rank_that_does_not_exist_is_refused_in_both_forms() {
    let expected = |call, list| {
        Error::Group(GroupError::OutOfRange { call, list: Some(list), rank: 4, world_size: 4 })
    };
    let error = refused(4, |_| Wish::Partition(vec![vec![0, 1], vec![2, 3, 4]]));
    assert_eq!(error, expected("partition", 1));
    assert_eq!(error.to_string(), "partition: lists[1] names rank 4, allowed: 0 to 3");
    let error = refused(4, |_| Wish::Subgroup(vec![0, 1, 2, 3, 4]));
    assert_eq!(error, expected("subgroup", 0));
    assert_eq!(error.to_string(), "subgroup: the list of rank 0 names rank 4, allowed: 0 to 3");
    // The first rank whose list is wrong is named.
    let wish = |rank| Wish::Subgroup(if rank == 0 { vec![0] } else { vec![1, 2, 3, 4] });
    let error = refused(4, wish);
    assert_eq!(error, expected("subgroup", 1));
    assert_eq!(error.to_string(), "subgroup: the list of rank 1 names rank 4, allowed: 0 to 3");
}

/// The error of a rank in two lists, or twice in one.
fn twice(call: &'static str, rank: usize, list: usize, other: usize) -> Error {
    Error::Group(GroupError::Twice { call, rank, list, other })
}

#[test]
fn a_rank_in_two_lists_or_twice_in_one_is_refused_in_both_forms() {
    let error = refused(4, |_| Wish::Partition(vec![vec![0, 1], vec![1, 2, 3]]));
    assert_eq!(error, twice("partition", 1, 0, 1));
    assert_eq!(
        error.to_string(),
        "partition: rank 1 is in lists[0] and in lists[1], allowed: in one group, once; process \
         groups are disjoint"
    );
    let error = refused(4, |_| Wish::Partition(vec![vec![2, 3], vec![0, 1, 1]]));
    assert_eq!(error, twice("partition", 1, 1, 1));
    assert_eq!(
        error.to_string(),
        "partition: rank 1 is twice in lists[1], allowed: in one group, once; process groups are \
         disjoint"
    );
    let error = refused(4, |_| Wish::Subgroup(vec![0, 1, 1, 2, 3]));
    assert_eq!(error, twice("subgroup", 1, 0, 0));
    let overlapping = |rank| Wish::Subgroup(if rank < 2 { vec![0, 1] } else { vec![1, 2, 3] });
    let error = refused(4, overlapping);
    assert_eq!(error, twice("subgroup", 1, 0, 2));
}

/// The error of a rank that asks for something else than others, of which the first and the number
/// are given.
fn disagree(
    rank: usize,
    (found, expected): (String, String),
    (other, agreeing): (usize, usize),
) -> Error {
    Error::Group(GroupError::Disagree { rank, found, expected, other, agreeing })
}

#[test]
fn partitions_that_differ_are_refused_and_the_first_rank_that_differs_is_named() {
    let error = refused(4, |rank| {
        Wish::Partition(if rank < 2 { vec![vec![0, 1]] } else { vec![vec![2, 3]] })
    });
    let found = "[[2, 3]]".to_owned();
    let expected = "[[0, 1]]".to_owned();
    assert_eq!(error, disagree(2, (found, expected), (0, 2)));
    assert_eq!(
        error.to_string(),
        "partition: the lists of rank 2 are [[2, 3]], expected [[0, 1]], as on rank 0 and 1 more"
    );
    // Most ranks are taken to be right, not the first.
    let error =
        refused(4, |rank| Wish::Partition(vec![if rank == 0 { vec![0, 1] } else { vec![2, 3] }]));
    let found = "[[0, 1]]".to_owned();
    let expected = "[[2, 3]]".to_owned();
    assert_eq!(error, disagree(0, (found, expected), (1, 3)));
}

#[test]
fn a_rank_that_is_not_among_its_own_is_refused() {
    let wish = |rank| Wish::Subgroup(if rank == 3 { vec![0, 1] } else { vec![0, 1, 2] });
    let error = refused(4, wish);
    assert_eq!(error, Error::Group(GroupError::NotAMember { rank: 3, list: vec![0, 1] }));
    assert_eq!(
        error.to_string(),
        "subgroup: the list of rank 3 is [0, 1], expected to contain rank 3"
    );
}

#[test]
fn members_that_ask_for_different_subgroups_are_refused() {
    let error =
        refused(4, |rank| Wish::Subgroup(if rank == 3 { vec![2, 3] } else { vec![0, 1, 2, 3] }));
    assert_eq!(error, twice("subgroup", 2, 0, 3));
    let error = refused(3, |rank| Wish::Subgroup(if rank == 1 { Vec::new() } else { vec![0, 2] }));
    assert_eq!(error, Error::Group(GroupError::NotAMember { rank: 1, list: Vec::new() }));
}

/// A group within a group counts its ranks from 0, in what it is asked and in what it answers.
#[test]
fn a_wish_of_a_group_within_a_group_is_refused_with_its_own_ranks() {
    on_threads(process_groups(5, LONG), |outer| {
        let half =
            pollster::block_on(outer.partition(&[vec![0, 1], vec![2, 3, 4]])).expect("a partition");
        if outer.rank() < 2 {
            return;
        }
        let refused = |made: Result<ProcessGroup, Error>| {
            made.map(|_| ()).expect_err("a wish that is refused")
        };
        let error = refused(pollster::block_on(half.partition(&[vec![0, 3]])));
        assert_eq!(error.to_string(), "partition: lists[0] names rank 3, allowed: 0 to 2");
        let lists = [vec![usize::from(half.rank() == 2), 2]];
        let found = "[[1, 2]]".to_owned();
        let expected = "[[0, 2]]".to_owned();
        let error = refused(pollster::block_on(half.partition(&lists)));
        assert_eq!(error, disagree(2, (found, expected), (0, 2)));
        let error = refused(pollster::block_on(half.subgroup(&[0, 1])));
        assert_eq!(error, Error::Group(GroupError::NotAMember { rank: 2, list: vec![0, 1] }));
        let error = refused(pollster::block_on(half.partition(&[vec![1, 2], vec![0, 1]])));
        assert_eq!(error, twice("partition", 1, 0, 1));
        let pair =
            pollster::block_on(half.partition(&[vec![1, 2]])).expect("the group still works");
        assert_eq!(pair.world_ranks(), if outer.rank() == 2 { &[2][..] } else { &[3, 4] });
    });
}

/// The form is part of the wish, also where the lists would do.
#[test]
fn a_partition_on_one_rank_and_a_subgroup_on_the_others_do_not_meet() {
    let subgroup =
        |group: &ProcessGroup| pollster::block_on(group.subgroup(&[2, 0, 1])).map(|_| ());
    one_elsewhere(partition, subgroup);
    one_elsewhere(subgroup, partition);
}

/// Lets rank 1 of a group do something else than the others: every rank must find the phase of rank
/// 1 to differ.
fn one_elsewhere(
    other: impl Fn(&ProcessGroup) -> Result<(), Error> + Sync,
    most: impl Fn(&ProcessGroup) -> Result<(), Error> + Sync,
) {
    let found = on_threads(process_groups(3, LONG), |group| {
        let error = if group.rank() == 1 { other(&group) } else { most(&group) }
            .expect_err("ranks that do not meet");
        assert!(group.failure().is_some(), "rank {}: {error}", group.rank());
        error
    });
    for error in found {
        let named = matches!(
            &error,
            Error::Exchange(ExchangeError::Mismatch { rank: 1, what: "call", .. })
        );
        assert!(named, "expected another phase of rank 1, found {error}");
    }
}

fn partition(group: &ProcessGroup) -> Result<(), Error> {
    pollster::block_on(group.partition(&[vec![0, 1, 2]])).map(|_| ())
}

fn forward(group: &ProcessGroup) -> Result<(), Error> {
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(1), [Device::host()])?.in_group(group)?;
    pollster::block_on(layer.forward_train(&Device::host().upload(&[2, 1], &[0.0, 1.0])?))
        .map(|_| ())
}

fn over_devices(group: &ProcessGroup) -> Result<(), Error> {
    let devices = vec![Device::host(); 2 + group.rank()];
    let made = SyncBatchNorm::new(BatchNormConfig::torch(1), devices)?.in_group(group)?;
    let x: Vec<_> =
        made.devices().iter().map(|device| device.zeros(&[2, 1])).collect::<Result<_, _>>()?;
    pollster::block_on(made.forward_train(&x)).map(|_| ())
}

#[test]
fn a_rank_that_makes_groups_while_the_others_train_is_named_on_every_rank() {
    one_elsewhere(partition, forward);
}

#[test]
fn a_rank_that_trains_while_the_others_make_groups_is_named_on_every_rank() {
    one_elsewhere(forward, partition);
}

#[test]
fn a_layer_over_devices_on_one_rank_and_groups_on_the_others_do_not_meet() {
    one_elsewhere(over_devices, partition);
    one_elsewhere(partition, over_devices);
}
