//! Owns the search for the smallest input that fails. It leaves out parts as long as the rest still
//! fails.

use std::time::{Duration, Instant};

use crate::problem::Problem;

/// Problems tried at most.
const TRIALS: usize = 400;
/// A search ends after this time, so a report of a broken device ends.
const TIME: Duration = Duration::from_secs(10);

/// Leaves out channels, ranks, samples and positions until every further cut passes, or time is up.
pub fn smallest(problem: Problem, fails: impl Fn(&Problem) -> bool) -> Problem {
    let started = Instant::now();
    let mut trials = 0;
    let mut smallest = problem;
    loop {
        let found = parts(&smallest).find(|part| {
            trials += 1;
            trials <= TRIALS && started.elapsed() < TIME && fails(part)
        });
        match found {
            Some(part) => smallest = part,
            None => return smallest,
        }
    }
}

/// Smaller problems, the smallest first along every axis.
fn parts(problem: &Problem) -> impl Iterator<Item = Problem> {
    let channels = cuts(problem.channels()).map(|kept| problem.with_channels(&kept));
    let ranks = cuts(problem.ranks.len()).map(|kept| problem.with_ranks(&kept));
    let within = (0..problem.ranks.len()).flat_map(move |rank| {
        let [samples, _, positions] = problem.ranks[rank].dims;
        let samples = cuts(samples).map(move |kept| problem.with_samples(rank, &kept));
        let positions = cuts(positions).map(move |kept| problem.with_positions(rank, &kept));
        samples.chain(positions)
    });
    channels.chain(ranks).chain(within)
}

/// Selections of `count` indices: either half, then all but a quarter, all but an eighth, down to
/// all but one.
fn cuts(count: usize) -> impl Iterator<Item = Vec<usize>> {
    let halves = std::iter::successors(Some(2), |parts| Some(parts * 2))
        .take_while(move |parts| parts / 2 < count);
    halves.filter(move |_| count > 1).flat_map(move |parts| {
        let bounds = move |part: usize| count * part / parts;
        let part = move |part| (bounds(part), bounds(part + 1));
        let left_out = (0..parts).map(part).filter(|(start, end)| start < end);
        left_out.map(move |(start, end)| (0..start).chain(end..count).collect())
    })
}

#[cfg(test)]
mod tests {
    use syncbn::{DType, Layout, low_level::Epilogue};

    use super::*;
    use crate::hard::random;

    #[test]
    fn cuts_leave_out_halves_first_and_single_ones_last() {
        let all: Vec<Vec<usize>> = cuts(3).collect();
        assert_eq!(all[..2], [vec![1, 2], vec![0]]);
        assert!([vec![1, 2], vec![0, 2], vec![0, 1]].iter().all(|kept| all.contains(kept)));
        assert_eq!(cuts(1).count() + cuts(0).count(), 0);
    }

    #[test]
    fn what_a_failure_needs_is_all_that_is_left() {
        let mut problem = random(
            DType::F32,
            Layout::ChannelsLast,
            Epilogue::ADD,
            &[[4, 5, 9], [3, 5, 9], [7, 5, 2]],
            1,
        );
        let [culprit, other] = [1e9, -1e9];
        problem.ranks[1].x[9 * 7 + 4] = culprit;
        problem.ranks[2].x[5] = other;
        let has = |problem: &Problem, wanted: f32| {
            problem.ranks.iter().any(|shard| shard.x.contains(&wanted))
        };
        let smallest = smallest(problem, |part| has(part, culprit) && part.values() >= 2);
        assert_eq!(smallest.values(), 2);
        assert_eq!(smallest.channels(), 1);
    }
}
