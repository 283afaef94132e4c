//! Whether the ranks that had to go on have gone on, with a right step, in a scenario of any kind.

use syncbn::Error;
use syncbn::stats::RunningStats;

use crate::common::Batch;
use crate::faults::judge::check_values;
use crate::faults::scenario::{CALLS, Call, Then};

/// A rank that has gone on, by a step from the beginning of the one that failed.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// The ranks of its new group.
    pub world_ranks: Vec<usize>,
    /// The results of the calls of a step, as [`Call::new`] numbers them.
    pub results: Vec<Vec<f32>>,
    pub running: Vec<RunningStats>,
}

/// What a rank did after its failure; `None` for one that did not ask who goes on.
pub type Outcome<'a> = Option<&'a Result<Survivor, Error>>;

/// What decides who goes on, and with which numbers.
pub trait Ended {
    fn world_size(&self) -> usize;

    /// Whether a rank has done something wrong.
    fn has_fault(&self, rank: usize) -> bool;

    /// What a rank does after its error in place of going on.
    fn then(&self, rank: usize) -> Option<Then>;

    /// What the step of so many survivors works on: every rank's batch, and its upstream gradient.
    fn data_of_survivors(&self, survivors: usize, layer: usize) -> [Vec<Batch>; 2];
}

/// Whether a rank must go on. One that drops its question may have had the answer at once.
fn goes_on(scenario: &impl Ended, outcome: Outcome<'_>, rank: usize) -> bool {
    !scenario.has_fault(rank)
        && match scenario.then(rank) {
            Some(Then::Panics | Then::Leaves) => false,
            Some(Then::DropsSurvivors) => outcome.is_some(),
            Some(Then::IsSlow) | None => true,
        }
}

/// All ranks without a fault, but the one that does something else then, have gone on together
/// with a right step; no other rank has.
pub fn check_survivors(scenario: &impl Ended, outcomes: &[Outcome<'_>]) -> Result<(), String> {
    let goes_on = |rank: &usize| goes_on(scenario, outcomes[*rank], *rank);
    let survivors: Vec<usize> = (0..scenario.world_size()).filter(goes_on).collect();
    let mut found: Vec<&Survivor> = Vec::new();
    for (rank, outcome) in outcomes.iter().enumerate() {
        match outcome {
            None if survivors.contains(&rank) => {
                return Err(format!("rank {rank} has not gone on"));
            }
            Some(_) if !survivors.contains(&rank) => {
                return Err(format!("rank {rank} has asked who goes on"));
            }
            None => {}
            Some(Err(error)) => return Err(format!("rank {rank}: {error}")),
            Some(Ok(survivor)) if survivor.world_ranks != survivors => {
                return Err(format!("rank {rank} goes on with {:?}", survivor.world_ranks));
            }
            Some(Ok(survivor)) => found.push(survivor),
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    if found.windows(2).any(|pair| pair[0].running != pair[1].running) {
        return Err("running statistics of survivors differ".to_owned());
    }
    for call in (0..CALLS).map(Call::new) {
        let results: Vec<_> =
            found.iter().map(|survivor| survivor.results.get(call.number)).collect();
        if results.iter().any(Option::is_none) {
            return Err(format!("a survivor has no result of {call:?}"));
        }
        let data = scenario.data_of_survivors(survivors.len(), call.layer);
        check_values(call.forward, &format!("survivors, {call:?}"), data, &results)?;
    }
    Ok(())
}
