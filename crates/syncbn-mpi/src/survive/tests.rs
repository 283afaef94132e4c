//! Agreements of ranks that come late, are killed, leave, take their question back and cannot reach
//! each other, by notices that take their time.

mod job;

use std::collections::BTreeSet;

use super::*;
use job::{Job, NEVER, Plan, drawn};

/// Ranks come at different times, late ones among them; some are killed or panic at any moment, or
/// take their question back, and may ask again.
#[test]
fn of_thousands_of_agreements_none_ends_in_two_groups_and_every_rank_ends() {
    let mut went_on = 0;
    for seed in 0..2000 {
        let mut job = drawn(seed, false);
        job.run(Duration::from_secs(5));
        job.check(seed);
        went_on += usize::from(!job.groups().is_empty());
    }
    assert!(went_on > 1000, "{went_on} of 2000 went on");
}

/// Two ranks, any two, do not reach each other.
#[test]
fn of_two_ranks_that_cannot_reach_each_other_one_at_most_goes_on() {
    for seed in 0..2000 {
        let mut job = drawn(seed, true);
        job.run(Duration::from_secs(5));
        job.check(seed);
    }
}

/// Ranks 0 and 1 do not reach each other, and the one that goes on with rank 2 does so before the
/// deadline of the other. To that one, rank 2 is not dead when it leaves the old group.
#[test]
fn who_leaves_for_the_new_group_is_not_dead_to_those_that_its_proposer_does_not_reach() {
    for seed in 0..100 {
        let mut job = Job::new(
            (0..3).map(|_| Plan { leaves: Duration::ZERO, ..Plan::at_once() }).collect(),
            seed,
        );
        let late = (seed % 2) as usize;
        job.plans[late].asks = Duration::from_millis(100);
        job.cut = Some(([0, 1], Duration::ZERO));
        job.run(Duration::from_secs(5));
        job.check(seed);
        let survivors = vec![1 - late, 2];
        assert_eq!(job.groups(), BTreeSet::from([&survivors]), "seed {seed}");
        let behind = CollectiveError::LeftBehind { survivors };
        assert_eq!(job.outcomes[late], Some(Err(behind)), "seed {seed}");
    }
}

/// A rank takes its question back, or is killed, between its answer and the group.
#[test]
fn a_member_that_does_not_come_is_an_error_and_no_wait_for_ever() {
    for seed in 0..200 {
        for (silent, millis) in [(false, 5 * (seed % 20)), (true, 5 * (seed % 20))] {
            let mut plans: Vec<Plan> = (0..3).map(|_| Plan::at_once()).collect();
            // Rank 2 answers later than rank 1.
            plans[2].asks = Duration::from_millis(60);
            let gone = Duration::from_millis(millis);
            if silent {
                plans[1].killed = gone;
            } else {
                plans[1].drops = gone;
            }
            let mut job = Job::new(plans, seed);
            job.run(Duration::from_secs(5));
            job.check(seed);
        }
    }
}

/// Rank 1 has said that it comes, and is gone. Rank 2 hears both before its own first look: with
/// its word rank 0 would have that of all, and make a group that never is.
#[test]
fn who_knows_that_another_does_not_come_does_not_say_that_it_comes() {
    let id = (0, 0);
    let decided = Notice::Decided(Proposal { id, members: vec![0, 1, 2] });
    for panics in [true, false] {
        let (mut roll, mut gone) = (Roll::default(), Gone::new());
        roll.take_in(0, decided.clone());
        roll.take_in(1, Notice::Joins { id, tag: 0 });
        if panics {
            gone.insert(1, true);
        } else {
            roll.take_in(1, Notice::Withdrawn);
        }
        let mut agreement = Agreement::new(2, 3, NEVER, 0);
        let (notices, outcome) = agreement.advance(&mut roll, &gone, Duration::ZERO);
        assert!(matches!(outcome, Some(Err(_))), "panics: {panics}, {outcome:?}");
        assert_eq!(notices, [(0, decided.clone()), (1, decided.clone())], "panics: {panics}");
    }
}
