//! Groups that all ranks have agreed on, in which one of them cannot take its place: every rank
//! gets an error at once that names it, and nobody waits for it in a new group.

use std::time::{Duration, Instant};

use pollster::block_on;
use syncbn::collective::{Collective, CollectiveError};
use syncbn::{Error, ProcessGroup, error::ExchangeError};

use crate::common::transport::Tapped;
use crate::common::{groups_over, on_threads};
use crate::process_groups::LONG;

/// Of `world_size` ranks, one cannot take its place in any new group.
fn groups(world_size: usize, culprit: usize, refusal: &CollectiveError) -> Vec<ProcessGroup> {
    groups_over(world_size, LONG, |rank| {
        let refusal = (rank.rank() == culprit).then(|| refusal.clone());
        Tapped::new(rank, |message| message).refusing_splits(refusal)
    })
}

/// What a rank gets that makes a group and then waits for its members there, and how long it takes.
fn make(group: &ProcessGroup, lists: &[Vec<usize>], as_subgroup: bool) -> (Error, Duration) {
    let began = Instant::now();
    let made = block_on(async {
        let own = lists.iter().find(|list| list.contains(&group.rank()));
        let alone = vec![group.rank()];
        let new = if as_subgroup {
            group.subgroup(own.unwrap_or(&alone)).await?
        } else {
            group.partition(lists).await?
        };
        new.barrier().await
    });
    (made.expect_err("a group that one rank cannot enter"), began.elapsed())
}

/// Errors that a transport may have on one rank alone, and how its process group tells them.
fn refusals() -> [(CollectiveError, &'static str); 3] {
    let message = "no more places".to_owned();
    let deadline = Duration::from_millis(7);
    [
        (CollectiveError::Transport { message }, "the transport failed: no more places"),
        (
            CollectiveError::Late { ranks: vec![5], deadline },
            "rank(s) [5] did not come within 7ms; every rank must make this call, and ranks of one \
            thread must be polled together",
        ),
        (CollectiveError::Left { rank: 5, panicked: false }, "rank 5 has left the group"),
    ]
}

#[test]
fn a_rank_that_cannot_enter_its_group_fails_all_ranks_at_once_by_its_name() {
    // Members of its group, of another one, and of none.
    let lists = [vec![0, 1, 4], vec![2, 3]];
    let cases = [(0, false), (1, false), (4, true), (2, true), (3, false)];
    for ((refusal, words), (culprit, as_subgroup)) in
        refusals().iter().flat_map(|refusal| cases.map(|case| (refusal, case)))
    {
        let found = on_threads(groups(6, culprit, refusal), |group| {
            let (error, took) = make(&group, &lists, as_subgroup);
            assert!(took < LONG / 2, "rank {} waited for {took:?}", group.rank());
            assert_eq!(group.failure().map(Error::from).as_ref(), Some(&error));
            error
        });
        let phase =
            if as_subgroup { "making of a subgroup" } else { "partition into process groups" };
        let at = format!("{phase}, exchange 0 of the group: ");
        let own = format!("{at}{words}");
        for (rank, error) in found.iter().enumerate() {
            let expected = if rank == culprit {
                own.clone()
            } else {
                format!("{at}rank {culprit} failed: {words}")
            };
            assert_eq!(error.to_string(), expected);
            let Error::Exchange(error) = error else { panic!("{error:?}") };
            let is_right = match error {
                ExchangeError::Aborted { rank, .. } => *rank == culprit,
                _ => rank == culprit,
            };
            assert!(is_right, "rank {rank}: {error:?}");
        }
    }
}
