//! The memory that the transport keeps for ranks that will not come, and frees with them.

use std::sync::mpsc;

use super::*;

/// Places in subgroups that are kept for ranks, of a group seen from one of them.
fn places(rank: &LocalRank) -> usize {
    let count = |state: &mut State| state.subgroups.values().flatten().flatten().count();
    rank.shared.change(count)
}

/// Keys of subgroups that are kept.
fn subgroups(rank: &LocalRank) -> usize {
    rank.shared.change(|state| state.subgroups.len())
}

#[test]
fn an_aborting_rank_keeps_no_places() {
    let ranks = LocalGroup::ranks(3);
    let taken: Vec<_> =
        (0..100).map(|key| ranks[0].split(key, &[0, 1]).expect("a place")).collect();
    let others: Vec<_> =
        (100..103).map(|key| ranks[2].split(key, &[0, 1, 2]).expect("a place")).collect();
    assert_eq!((places(&ranks[0]), subgroups(&ranks[0])), (106, 103));
    ranks[1].abort(Vec::new());
    // Those of rank 0 are kept for it: what all have agreed on it may take.
    assert_eq!((places(&ranks[0]), subgroups(&ranks[0])), (3, 3));
    // Made after the abort.
    let late = ranks[0].split(103, &[0, 1]).expect("a place");
    assert_eq!((places(&ranks[0]), subgroups(&ranks[0])), (3, 3));
    ranks[0].abort(Vec::new());
    assert_eq!((places(&ranks[0]), subgroups(&ranks[0])), (0, 0));
    drop((taken, others, late));
}

#[test]
fn a_broken_group_keeps_no_messages() {
    let ranks = LocalGroup::ranks(2);
    let rounds: Vec<_> =
        (0..10).map(|_| ranks[0].all_gather(vec![0; 1000], Duration::MAX)).collect();
    let kept = || ranks[0].shared.change(|state| state.rounds.len());
    assert_eq!(kept(), 10);
    ranks[1].abort(Vec::new());
    assert_eq!(kept(), 0);
    assert!(ranks[0].all_gather(vec![0; 1000], Duration::MAX).now_or_never().is_some());
    assert_eq!(kept(), 0);
    drop(rounds);
}

#[test]
fn a_request_for_the_survivors_ends_when_its_rank_is_dropped() {
    let mut ranks = LocalGroup::ranks(2).into_iter();
    let first = ranks.next().expect("rank 0");
    let second = ranks.next().expect("rank 1");
    let asks = first.survivors(Duration::from_millis(50));
    drop(first);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(pollster::block_on(asks)));
    let answer = receiver.recv_timeout(Duration::from_secs(10)).expect("an answer");
    let left = CollectiveError::Left { rank: 0, panicked: false };
    assert_eq!(answer.map(|survivors| survivors.ranks), Err(left));
    // The other rank lives, and goes on alone.
    let alone = pollster::block_on(second.survivors(Duration::from_millis(50)));
    assert_eq!(alone.map(|survivors| survivors.ranks), Ok(vec![1]));
}

#[test]
fn a_split_with_ranks_beyond_the_group_is_refused() {
    let ranks = LocalGroup::ranks(2);
    let message = "[0, 7] are not all ranks of a group of 2".to_owned();
    let refused = ranks[0].split(0, &[0, 7]).map(|_| ());
    assert_eq!(refused, Err(CollectiveError::Transport { message }));
    // The group works on, and nothing is kept.
    assert_eq!(subgroups(&ranks[0]), 0);
    let taken = ranks[0].split(0, &[0, 1]).map(|subgroup| subgroup.world_size());
    assert_eq!(taken, Ok(2));
}
