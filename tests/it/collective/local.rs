//! What the local transport promises beyond the suite: panics are told apart, and deadlines hold.

use std::time::{Duration, Instant};

use syncbn::collective::LocalGroup;
use syncbn::collective::{Collective, CollectiveError};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_rank_that_panics_is_told_apart_from_one_that_leaves() {
    let mut ranks = LocalGroup::ranks(3);
    let panicking = ranks.remove(1);
    let waiting = ranks.into_iter().map(|rank| {
        std::thread::spawn(move || {
            pollster::block_on(rank.all_gather(Vec::new(), LONG)).map(|_| ())
        })
    });
    let waiting: Vec<_> = waiting.collect();
    let thread = std::thread::spawn(move || {
        let _rank = panicking;
        // Unwinds like a panic, without the message.
        std::panic::resume_unwind(Box::new("planted"));
    });
    assert!(thread.join().is_err());
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), Err(CollectiveError::Left { rank: 1, panicked: true }));
    }
}

#[test]
fn all_ranks_that_are_late_are_named_once_the_deadline_has_passed_and_not_before() {
    let ranks = LocalGroup::ranks(5);
    let deadline = Duration::from_millis(200);
    let began = Instant::now();
    let found = pollster::block_on(futures::future::join(
        ranks[1].all_gather(Vec::new(), deadline),
        ranks[3].all_gather(Vec::new(), LONG),
    ));
    let late = Err(CollectiveError::Late { ranks: vec![0, 2, 4], deadline });
    assert_eq!(found, (late.clone(), late.clone()));
    assert!(began.elapsed() >= deadline && began.elapsed() < deadline + Duration::from_secs(1));
    // Those that come now learn that they were.
    assert_eq!(pollster::block_on(ranks[4].all_gather(Vec::new(), LONG)), late);
}

#[test]
fn a_rank_that_leaves_after_its_message_does_not_spoil_the_round() {
    let mut ranks = LocalGroup::ranks(2);
    let last = ranks.pop().unwrap();
    let first = ranks.pop().unwrap();
    let waiting = first.all_gather(vec![1], LONG);
    let done = pollster::block_on(last.all_gather(vec![2], LONG));
    drop(last);
    assert_eq!(pollster::block_on(waiting), done);
    let left = Err(CollectiveError::Left { rank: 1, panicked: false });
    assert_eq!(pollster::block_on(first.all_gather(vec![3], LONG)), left);
}

#[test]
fn several_rounds_of_one_rank_may_be_under_way_at_once() {
    let ranks = LocalGroup::ranks(2);
    let rounds: Vec<_> = (0..3).map(|round| ranks[0].all_gather(vec![round], LONG)).collect();
    let answers: Vec<_> = (0..3).map(|round| ranks[1].all_gather(vec![10 + round], LONG)).collect();
    let gathered = joined(rounds.into_iter().chain(answers).collect());
    let gathered: Vec<_> =
        gathered.into_iter().map(|round| round.expect("a complete round")).collect();
    assert_eq!(gathered[..3], gathered[3..]);
    for (number, round) in (0..).zip(&gathered[..3]) {
        assert_eq!((&round[0][..], &round[1][..]), (&[number][..], &[10 + number][..]));
    }
}

#[test]
fn a_place_in_a_subgroup_is_taken_once() {
    let ranks = LocalGroup::ranks(2);
    assert!(ranks[0].split(0, &[0, 1]).is_ok());
    assert!(matches!(ranks[0].split(0, &[0, 1]), Err(CollectiveError::Transport { .. })));
    assert!(matches!(ranks[0].split(1, &[1]), Err(CollectiveError::Transport { .. })));
    assert!(ranks[1].split(0, &[0, 1]).is_ok());
}

/// All have agreed on the subgroup: a rank that is ahead, and fails in its next call, does not take
/// it from those behind. If it is gone with its place untaken, they learn that in the subgroup.
#[test]
fn a_subgroup_is_made_although_a_member_that_is_ahead_has_broken_the_group_or_is_gone() {
    let mut ranks = LocalGroup::ranks(3);
    let ahead = ranks[1].split(0, &[0, 1]).expect("a place");
    ranks[1].abort(Vec::new());
    let behind = ranks[0].split(0, &[0, 1]).expect("a place, too");
    let both = joined(vec![ahead.all_gather(vec![1], LONG), behind.all_gather(vec![0], LONG)]);
    assert!(both.iter().all(|gathered| gathered.as_ref().is_ok_and(|all| all.len() == 2)));

    // Gone before the other has made the subgroup, and after.
    let made = ranks[0].split(1, &[0, 2]).expect("a place");
    drop(ranks.pop());
    for subgroup in [made, ranks[0].split(2, &[0, 2]).expect("a place")] {
        let began = Instant::now();
        let error = pollster::block_on(subgroup.all_gather(Vec::new(), LONG)).unwrap_err();
        assert_eq!(error, CollectiveError::Left { rank: 1, panicked: false });
        assert!(began.elapsed() < LONG / 2);
    }
}

/// An aborting rank makes no more calls, so nobody waits for it where it has not come yet.
#[test]
fn a_rank_that_aborts_gives_up_the_places_that_it_has_not_taken() {
    let ranks = LocalGroup::ranks(3);
    let taken = ranks[1].split(0, &[0, 1]).expect("a place");
    let made = ranks[0].split(1, &[0, 1]).expect("a place");
    ranks[1].abort(Vec::new());
    for subgroup in [made, ranks[0].split(2, &[0, 1]).expect("a place")] {
        let began = Instant::now();
        let error = pollster::block_on(subgroup.all_gather(Vec::new(), LONG)).unwrap_err();
        assert_eq!(error, CollectiveError::Left { rank: 1, panicked: false });
        assert!(began.elapsed() < LONG / 2);
    }
    // What it has taken it keeps, and so do others what is theirs.
    let other = ranks[0].split(0, &[0, 1]).expect("a place");
    let both = joined(vec![taken.all_gather(vec![1], LONG), other.all_gather(vec![0], LONG)]);
    assert!(both.iter().all(Result::is_ok));
    let pair = [0, 2].map(|rank: usize| ranks[rank].split(3, &[0, 2]).expect("a place"));
    let both = joined(pair.iter().map(|rank| rank.all_gather(Vec::new(), LONG)).collect());
    assert!(both.iter().all(Result::is_ok));
}

/// The place is dropped by another rank's thread, which does not panic.
#[test]
fn a_place_that_a_rank_did_not_take_before_it_panicked_says_so() {
    let mut ranks = LocalGroup::ranks(2);
    let panics = ranks.pop();
    let thread = std::thread::spawn(move || {
        let _panics = panics;
        std::panic::resume_unwind(Box::new("planted"));
    });
    assert!(thread.join().is_err());
    let subgroup = ranks[0].split(0, &[0, 1]).expect("a place");
    let error = pollster::block_on(subgroup.all_gather(Vec::new(), LONG)).unwrap_err();
    assert_eq!(error, CollectiveError::Left { rank: 1, panicked: true });
}

fn joined<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    pollster::block_on(futures::future::join_all(futures))
}
