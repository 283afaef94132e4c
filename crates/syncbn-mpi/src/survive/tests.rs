//! Agreements of ranks that come late and are killed, by notices that take their time.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;

/// Ranks whose notices arrive in order, after a time of their own each.
struct Job {
    rolls: Vec<Roll>,
    agreements: Vec<Option<Agreement>>,
    outcomes: Vec<Option<Outcome>>,
    /// When each rank asks, and when it is killed.
    asks: Vec<Duration>,
    killed: Vec<Duration>,
    under_way: Vec<(Duration, usize, usize, Notice)>,
    random: ChaCha8Rng,
}

impl Job {
    fn next(&mut self, end: u64) -> u64 {
        self.random.next_u64() % end
    }

    fn send(&mut self, now: Duration, from: usize, notices: Notices) {
        for (to, notice) in notices {
            let way = Duration::from_millis(1 + self.next(20));
            // Not before an earlier one between the same two.
            let before = self.under_way.iter().filter(|(_, f, t, _)| (*f, *t) == (from, to));
            let at = before.map(|(at, ..)| *at).fold(now + way, Duration::max);
            self.under_way.push((at, from, to, notice));
        }
    }

    /// Runs for a minute, in steps of 5 ms.
    fn run(mut self, deadline: Duration) -> Vec<Option<Outcome>> {
        let size = self.rolls.len();
        for step in 0..12_000 {
            let now = Duration::from_millis(5 * step);
            let (arrived, rest) = self.under_way.into_iter().partition(|(at, ..)| *at <= now);
            self.under_way = rest;
            let arrived: Vec<(Duration, usize, usize, Notice)> = arrived;
            for (_, from, to, notice) in arrived {
                self.rolls[to].take_in(from, notice);
            }
            for rank in 0..size {
                if now < self.asks[rank] || now >= self.killed[rank] {
                    continue;
                }
                if self.outcomes[rank].is_some() {
                    continue;
                }
                if self.agreements[rank].is_none() {
                    let agreement = Agreement::new(rank, size, deadline);
                    let present = agreement.to_all(&Notice::Present);
                    self.agreements[rank] = Some(agreement);
                    self.send(now, rank, present);
                }
                let waited = now - self.asks[rank];
                let agreement = self.agreements[rank].as_mut().expect("made above");
                let (notices, ended) =
                    agreement.advance(&mut self.rolls[rank], &BTreeSet::new(), waited);
                self.send(now, rank, notices);
                self.outcomes[rank] = ended;
            }
        }
        self.outcomes
    }
}

/// Ranks come at different times, late ones among them, and some are killed at any moment.
#[test]
fn of_thousands_of_agreements_none_ends_in_two_groups_and_every_rank_ends() {
    let deadline = Duration::from_secs(5);
    let mut went_on = 0;
    for seed in 0..2000 {
        let mut job = Job {
            rolls: Vec::new(),
            agreements: Vec::new(),
            outcomes: Vec::new(),
            asks: Vec::new(),
            killed: Vec::new(),
            under_way: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
        };
        let size = 2 + job.next(6) as usize;
        for _ in 0..size {
            let asks = Duration::from_millis(match job.next(6) {
                0 => 4900 + job.next(300),
                1 => 9000 + job.next(9000),
                _ => job.next(100),
            });
            let killed = match job.next(8) {
                0 => asks + Duration::from_millis(job.next(6000)),
                1 => Duration::ZERO,
                _ => Duration::MAX,
            };
            job.asks.push(asks);
            job.killed.push(killed);
            job.rolls.push(Roll::default());
            job.agreements.push(None);
            job.outcomes.push(None);
        }
        let killed = job.killed.clone();
        let outcomes = job.run(deadline);
        let decided: Vec<&Vec<usize>> =
            outcomes.iter().flatten().filter_map(|outcome| outcome.as_ref().ok()).collect();
        let is_one = decided.windows(2).all(|pair| pair[0] == pair[1]);
        assert!(is_one, "seed {seed}: {outcomes:?}");
        for (rank, outcome) in outcomes.iter().enumerate() {
            assert!(outcome.is_some() || killed[rank] < Duration::MAX, "seed {seed}: {rank}");
            if let Some(Ok(members)) = outcome {
                assert!(members.contains(&rank), "seed {seed}: {outcomes:?}");
            }
        }
        went_on += usize::from(!decided.is_empty());
    }
    assert!(went_on > 1000, "{went_on} of 2000 went on");
}
