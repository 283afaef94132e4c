//! A job whose ranks go through the agreement by plans of what happens to them, in simulated time.

use std::collections::BTreeSet;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::notice::Notice;
use crate::survive::agreement::{Agreement, Gone, Notices, Outcome};
use crate::survive::roll::Roll;

/// The time of what does not happen.
pub(super) const NEVER: Duration = Duration::MAX;

/// The plan of one rank.
#[derive(Debug)]
pub(super) struct Plan {
    /// When it asks, and when its question is dropped and asked again.
    pub asks: Duration,
    pub drops: Duration,
    pub again: Duration,
    /// When it is killed, and whether it says so, as a rank that panics does.
    pub killed: Duration,
    pub panics: bool,
    /// How long after its answer it drops its place in the old group.
    pub leaves: Duration,
}

impl Plan {
    /// A rank that asks at once, and to which nothing happens.
    pub fn at_once() -> Self {
        let [drops, again, killed, leaves] = [NEVER; 4];
        Self { asks: Duration::ZERO, drops, again, killed, panics: false, leaves }
    }
}

/// Ranks whose notices arrive in order, after a time of their own each.
pub(super) struct Job {
    pub plans: Vec<Plan>,
    /// A link that is cut, and when.
    pub cut: Option<([usize; 2], Duration)>,
    rolls: Vec<Roll>,
    gone: Vec<Gone>,
    agreements: Vec<Option<(Agreement, Duration)>>,
    pub outcomes: Vec<Option<Outcome>>,
    /// When each drops its place in the old group, and whether it has.
    leaves: Vec<Option<Duration>>,
    has_left: Vec<bool>,
    under_way: Vec<(Duration, usize, usize, Notice)>,
    random: ChaCha8Rng,
}

impl Job {
    pub fn new(plans: Vec<Plan>, seed: u64) -> Self {
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
    pub fn run(&mut self, deadline: Duration) {
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
    pub fn groups(&self) -> BTreeSet<&Vec<usize>> {
        let ranks = 0..self.plans.len();
        let all_go = |members: &&Vec<usize>| {
            members.iter().all(|&member| self.members(member) == Some(*members))
        };
        ranks.filter_map(|rank| self.members(rank)).filter(all_go).collect()
    }

    /// Every rank that lives has an answer, there is one group at most, and nobody waits in MPI for
    /// a rank that lives and does not come.
    pub fn check(&self, seed: u64) {
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
pub(super) fn drawn(seed: u64, cut: bool) -> Job {
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
