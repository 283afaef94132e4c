//! Agreements of ranks that come late, are killed, leave, take their question back and cannot reach
//! each other, by notices that take their time.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::agreement::Notices;
use super::*;

const NEVER: Duration = Duration::MAX;

/// The plan of one rank.
#[derive(Debug)]
struct Plan {
    /// When it asks, and when its question is dropped and asked again.
    asks: Duration,
    drops: Duration,
    again: Duration,
    /// When it is killed, and whether it says so, as a rank that panics does.
    killed: Duration,
    panics: bool,
    /// How long after its answer it drops its place in the old group.
    leaves: Duration,
}

impl Plan {
    fn at_once() -> Self {
        let [drops, again, killed, leaves] = [NEVER; 4];
        Self { asks: Duration::ZERO, drops, again, killed, panics: false, leaves }
    }
}

/// Ranks whose notices arrive in order, after a time of their own each.
struct Job {
    plans: Vec<Plan>,
    /// A link that is cut, and when.
    cut: Option<([usize; 2], Duration)>,
    rolls: Vec<Roll>,
    gone: Vec<Gone>,
    agreements: Vec<Option<(Agreement, Duration)>>,
    outcomes: Vec<Option<Outcome>>,
    /// When each drops its place in the old group, and whether it has.
    leaves: Vec<Option<Duration>>,
    has_left: Vec<bool>,
    under_way: Vec<(Duration, usize, usize, Notice)>,
    random: ChaCha8Rng,
}

impl Job {
    fn new(plans: Vec<Plan>, seed: u64) -> Self {
        let size = plans.len();
        Self {
            plans,
            cut: None,
            rolls: (0..size).map(|_| Roll::default()).collect(),
            gone: vec![Gone::new(); size],
            agreements: (0..size).map(|_| None).collect(),
            outcomes: vec![None; size],
            leaves: vec![None; size],
            has_left: vec![false; size],
            under_way: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    fn next(&mut self, end: u64) -> u64 {
        self.random.next_u64() % end
    }

    fn is_cut(&self, now: Duration, from: usize, to: usize) -> bool {
        self.cut.is_some_and(|(ends, at)| now >= at && ends.contains(&from) && ends.contains(&to))
    }

    fn send(&mut self, now: Duration, from: usize, notices: Notices) {
        for (to, notice) in notices {
            let way = Duration::from_millis(1 + self.next(20));
            // Not before an earlier one between the same two.
            let before = self.under_way.iter().filter(|(_, f, t, _)| (*f, *t) == (from, to));
            let at = before.map(|(at, ..)| *at).fold(now + way, Duration::max);
            if !self.is_cut(now, from, to) {
                self.under_way.push((at, from, to, notice));
            }
        }
    }

    fn send_all(&mut self, now: Duration, from: usize, notice: &Notice) {
        let others = (0..self.plans.len()).filter(|&to| to != from);
        self.send(now, from, others.map(|to| (to, notice.clone())).collect());
    }

    fn arrive(&mut self, now: Duration) {
        let (arrived, rest) = self.under_way.drain(..).partition(|(at, ..)| *at <= now);
        self.under_way = rest;
        let arrived: Vec<(Duration, usize, usize, Notice)> = arrived;
        for (_, from, to, notice) in arrived {
            if self.is_cut(now, from, to) {
                continue;
            }
            match notice {
                Notice::Left { panicked, .. } => drop(self.gone[to].insert(from, panicked)),
                notice => self.rolls[to].take_in(from, notice),
            }
        }
    }

    fn leave(&mut self, now: Duration, rank: usize, panicked: bool) {
        if !std::mem::replace(&mut self.has_left[rank], true) {
            self.send_all(now, rank, &Notice::Left { rounds: 0, panicked });
        }
    }

    /// One look of a rank.
    fn look(&mut self, now: Duration, rank: usize, deadline: Duration) {
        let Plan { asks, drops, again, killed, panics, leaves } = self.plans[rank];
        if now >= killed {
            if panics {
                self.leave(now, rank, true);
            }
        } else if let Some(outcome) = &self.outcomes[rank] {
            // Not before MPI has made the group.
            if outcome.is_err() || self.groups().iter().any(|group| group.contains(&rank)) {
                let leaves = self.leaves[rank].get_or_insert(now.saturating_add(leaves));
                if now >= *leaves {
                    self.leave(now, rank, false);
                }
            }
        } else if now >= drops && now < again {
            match &self.agreements[rank] {
                Some((agreement, _)) if agreement.joins() => self.ask(now, rank, deadline),
                Some(_) => {
                    self.agreements[rank] = None;
                    self.take_back(now, rank);
                }
                None => {}
            }
        } else if now >= asks {
            self.ask(now, rank, deadline);
        }
    }

    fn take_back(&mut self, now: Duration, rank: usize) {
        self.rolls[rank].withdraw(rank);
        self.send_all(now, rank, &Notice::Withdrawn);
    }

    fn ask(&mut self, now: Duration, rank: usize, deadline: Duration) {
        if self.agreements[rank].is_none() {
            let agreement = Agreement::new(rank, self.plans.len(), deadline, 0);
            self.agreements[rank] = Some((agreement, now));
            self.send_all(now, rank, &Notice::Present);
        }
        let (agreement, since) = self.agreements[rank].as_mut().expect("made above");
        let (notices, ended) =
            agreement.advance(&mut self.rolls[rank], &self.gone[rank], now - *since);
        self.send(now, rank, notices);
        if let Some(Err(_)) = ended {
            self.take_back(now, rank);
        }
        self.outcomes[rank] = ended;
    }

    /// Runs for a minute, in steps of 5 ms.
    fn run(&mut self, deadline: Duration) {
        for step in 0..12_000 {
            let now = Duration::from_millis(5 * step);
            self.arrive(now);
            for rank in 0..self.plans.len() {
                self.look(now, rank, deadline);
            }
        }
    }

    fn members(&self, rank: usize) -> Option<&Vec<usize>> {
        self.outcomes[rank].as_ref()?.as_ref().ok()
    }

    /// The groups whose members all go on: MPI makes no other.
    fn groups(&self) -> BTreeSet<&Vec<usize>> {
        let ranks = 0..self.plans.len();
        let all_go = |members: &&Vec<usize>| {
            members.iter().all(|&member| self.members(member) == Some(*members))
        };
        ranks.filter_map(|rank| self.members(rank)).filter(all_go).collect()
    }

    /// Every rank that lives has an answer, there is one group at most, and nobody waits in MPI for
    /// a rank that lives and does not come.
    fn check(&self, seed: u64) {
        let context = || {
            let outcomes = &self.outcomes;
            format!("seed {seed}, cut {:?}: {outcomes:?}\n{:?}", self.cut, self.plans)
        };
        assert!(self.groups().len() <= 1, "{}", context());
        for (rank, plan) in self.plans.iter().enumerate() {
            let may_have_none = plan.killed < NEVER || plan.again == NEVER && plan.drops < NEVER;
            assert!(self.outcomes[rank].is_some() || may_have_none, "rank {rank}, {}", context());
            let Some(members) = self.members(rank) else { continue };
            assert!(members.contains(&rank), "rank {rank}, {}", context());
            let goes = |&member: &usize| self.members(member) == Some(members);
            // Of a rank that is killed at that moment some have heard that it comes; on a link that
            // is cut what one said last does not arrive.
            let may_wait = self.cut.is_some()
                || members.iter().any(|&member| self.plans[member].killed < NEVER);
            assert!(may_wait || members.iter().all(goes), "rank {rank}, {}", context());
        }
    }
}

/// A job drawn at random; with `cut`, one of its links is cut.
fn drawn(seed: u64, cut: bool) -> Job {
    let mut job = Job::new(Vec::new(), seed);
    let millis = Duration::from_millis;
    let size = 2 + job.next(6) as usize;
    let plans = (0..size).map(|_| {
        let asks = millis(match job.next(6) {
            0 => 4900 + job.next(300),
            1 => 9000 + job.next(9000),
            _ => job.next(100),
        });
        let (killed, panics) = match job.next(8) {
            0 => (asks + millis(job.next(6000)), false),
            1 => (Duration::ZERO, false),
            2 => (asks + millis(job.next(120)), true),
            _ => (NEVER, false),
        };
        let drops = match job.next(6) {
            0 => asks + millis(job.next(150)),
            1 => asks + millis(4900 + job.next(300)),
            _ => NEVER,
        };
        let again =
            if drops < NEVER && job.next(2) == 0 { drops + millis(job.next(100)) } else { NEVER };
        let leaves = if job.next(2) == 0 { millis(job.next(50)) } else { NEVER };
        Plan { asks, drops, again, killed, panics, leaves }
    });
    let plans = plans.collect();
    let cut = (cut && size > 2).then(|| {
        let one = job.next(size as u64) as usize;
        let other = (one + 1 + job.next(size as u64 - 1) as usize) % size;
        ([one, other], millis(job.next(6000)))
    });
    let next_seed = job.next(u64::MAX);
    Job { cut, ..Job::new(plans, next_seed) }
}

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
