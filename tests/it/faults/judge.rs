//! Whether every rank of a scenario saw what it should: right results, then an error in time that
//! names the culprit, then right results of the others without it.

use std::time::Duration;

use syncbn::{Error, error::ExchangeError};
use syncbn_reference::{self as reference, RankBatch};

use crate::common::{self, Batch, widened};
use crate::faults::rank::Report;
use crate::faults::scenario::{Call, Fault, Scenario, Then};
use crate::faults::survivors::{Ended, check_survivors};

/// How much later than the deadline an error may come, for a loaded machine.
pub const SLACK: Duration = Duration::from_secs(1);

/// How far a gradient may be from the definition, as a share of weight·inv_std·max|g|, to which
/// each of its three terms is comparable: 64 half ulp of f32 for some twenty roundings.
const GRADIENT_TOLERANCE: f64 = 64.0 / (1u64 << 24) as f64;

/// The longest time that a rank waited for its error, or what is wrong.
pub fn judge(scenario: &Scenario, reports: &[Option<Report>]) -> Result<Duration, String> {
    check_results(scenario, reports)?;
    let mut slowest = Duration::ZERO;
    let mut first: Option<&ExchangeError> = None;
    for (rank, report) in reports.iter().enumerate() {
        let wrong = |what: &str| {
            Err(format!("rank {rank}: {what}: {:?}", report.as_ref().map(|r| &r.failure)))
        };
        let Some(report) = report else {
            let panics = matches!(scenario.fault, Fault::Panics | Fault::PanicsInside)
                && rank == scenario.culprit
                || scenario.then(rank) == Some(Then::Panics);
            if panics { continue } else { return wrong("it panicked") }
        };
        let Some(failure) = &report.failure else {
            let gone =
                matches!(scenario.fault, Fault::Leaves | Fault::DropsUnpolled | Fault::DropsDuring);
            if gone && rank == scenario.culprit { continue } else { return wrong("no error") }
        };
        if failure.took > scenario.deadline + SLACK || failure.next_took > SLACK {
            return wrong("the error came too late");
        }
        slowest = slowest.max(failure.took);
        if !failure.unchanged {
            return wrong("running statistics have changed");
        }
        // The rank was in its next call where the culprit's message had completed the exchange
        // before it was gone.
        let after =
            usize::from(scenario.fault == Fault::DropsDuring && failure.call != scenario.call);
        if failure.call != Call::new(scenario.call.number + after) {
            return wrong("it failed at another call");
        }
        let Some(cause) = &failure.group else {
            return wrong("the group does not know that it has failed");
        };
        let refused = matches!(
            &failure.next,
            Some(Error::Exchange(ExchangeError::Poisoned { cause: said, .. }))
                if *said == cause.to_string()
        );
        if !refused {
            return wrong("the next call was not refused with the cause");
        }
        if rank == scenario.culprit
            && matches!(scenario.fault, Fault::BadShape | Fault::DropsDuring | Fault::Notifies)
        {
            let own = match &failure.error {
                Error::Argument(_) => scenario.fault == Fault::BadShape,
                Error::Exchange(ExchangeError::Poisoned { .. }) => {
                    scenario.fault != Fault::BadShape
                }
                _ => false,
            };
            if own { continue } else { return wrong("another error than its own") }
        }
        let Error::Exchange(error) = &failure.error else {
            return wrong("not an error of the exchange");
        };
        if error != cause {
            return wrong("the group remembers another cause");
        }
        if let Err(what) = check_error(scenario, failure.call, rank, error) {
            return wrong(&what);
        }
        // The culprit may have been somewhere else, which its own error says.
        if rank != scenario.culprit {
            if first.is_some_and(|first| first != error) {
                return wrong("another error than the ranks before");
            }
            first = Some(error);
        }
    }
    check_running(scenario, reports)?;
    let outcomes: Vec<_> =
        reports.iter().map(|report| report.as_ref()?.survivor.as_ref()).collect();
    check_survivors(scenario, &outcomes).map(|()| slowest)
}

/// Whether a rank that has no fault that makes it so is said to be late, before the failure or
/// among those who go on, or an error came too late.
pub fn is_late(scenario: &Scenario, reports: &[Option<Report>]) -> bool {
    let is_meant = |rank: &usize| scenario.fault.is_late() && *rank == scenario.culprit;
    let outcomes = reports.iter().flatten().filter_map(|report| report.survivor.as_ref());
    // Nobody who goes on is meant to be late.
    let is_survivor_late = outcomes
        .filter_map(|outcome| outcome.as_ref().err())
        .any(|error| matches!(error, Error::Exchange(ExchangeError::Late { .. })));
    is_survivor_late
        || reports.iter().flatten().filter_map(|report| report.failure.as_ref()).any(|failure| {
            failure.took > scenario.deadline + SLACK
                || failure.next_took > SLACK
                || matches!(&failure.error, Error::Exchange(ExchangeError::Late { ranks, .. })
                if !ranks.iter().all(is_meant))
        })
}

/// Whether the error names the place, and the culprit for what it did.
fn check_error(
    scenario: &Scenario,
    call: Call,
    rank: usize,
    error: &ExchangeError,
) -> Result<(), String> {
    use ExchangeError as E;
    let culprit = scenario.culprit;
    // Of two ranks that differ, the lower one is taken to be right.
    let differs = |named: usize| named == culprit || scenario.world_size == 2;
    let named = match (scenario.fault, error) {
        (Fault::Late | Fault::Evaluates, E::Late { ranks, deadline, own, .. }) => {
            *ranks == [culprit]
                && *deadline == scenario.deadline
                && *own == (rank == culprit)
                && error.to_string().contains("this rank came too late") == *own
        }
        (Fault::Panics, E::Left { rank, panicked, .. }) => *rank == culprit && *panicked,
        (Fault::PanicsInside, E::Aborted { rank, reason, .. }) => {
            *rank == culprit && reason.contains("panicked")
        }
        (Fault::BadShape, E::Aborted { rank, reason, .. }) => {
            let said = |argument| reason.contains(&format!(": {argument} has "));
            *rank == culprit && (said("x") || said("grad_output"))
        }
        (Fault::Notifies, E::Aborted { rank, reason, .. }) => {
            *rank == culprit && reason == "it called abort: planted"
        }
        (Fault::Leaves | Fault::DropsUnpolled, E::Left { rank, panicked, .. }) => {
            *rank == culprit && !panicked
        }
        // Its message was the last, so that its call was over; then it left.
        (Fault::DropsDuring, E::Left { rank, panicked, .. }) if call != scenario.call => {
            *rank == culprit && !panicked
        }
        (Fault::DropsDuring, E::Aborted { rank, reason, .. }) => {
            *rank == culprit
                && reason.ends_with("its call was dropped while it waited for the other ranks")
        }
        (Fault::OtherLayer, E::Mismatch { rank, what, .. }) => differs(*rank) && *what == "layer",
        (Fault::OtherPhase | Fault::Recomputes, E::Mismatch { rank, what, .. }) => {
            differs(*rank) && *what == "call"
        }
        (Fault::OtherForward, E::Mismatch { rank, what, .. }) => {
            differs(*rank) && *what == "forward exchange of `saved`"
        }
        (Fault::OtherChannels, E::Mismatch { rank, what, .. }) => {
            differs(*rank) && *what == "num_features"
        }
        (Fault::OtherEps, E::Setting { rank, name, .. }) => differs(*rank) && &**name == "eps",
        (Fault::Garbage, E::Frame { rank, .. }) => *rank == culprit,
        _ => false,
    };
    if !named {
        return Err("the error does not name the culprit and what it did".to_owned());
    }
    let place = format!("layer {} {:?}, ", call.layer, Scenario::name(call.layer));
    let phase = if call.forward { "forward" } else { "backward" };
    let text = error.to_string();
    let elsewhere =
        rank == culprit && matches!(scenario.fault, Fault::OtherLayer | Fault::OtherPhase);
    if elsewhere || (text.starts_with(&place) && text.contains(phase)) {
        Ok(())
    } else {
        Err(format!("the error does not name {place}{phase}"))
    }
}

/// Ranks that have made the same calls have the same bits.
fn check_running(scenario: &Scenario, reports: &[Option<Report>]) -> Result<(), String> {
    let comparable =
        |rank: usize| !(rank == scenario.culprit && scenario.fault == Fault::OtherChannels);
    let reports = reports.iter().enumerate().filter(|(rank, _)| comparable(*rank));
    let ended: Vec<_> =
        reports.filter_map(|(_, report)| report.as_ref()).filter(|r| r.failure.is_some()).collect();
    for pair in ended.windows(2) {
        if pair[0].results.len() == pair[1].results.len() && pair[0].running != pair[1].running {
            return Err(format!(
                "running statistics differ: {:?}, {:?}",
                pair[0].running, pair[1].running
            ));
        }
    }
    Ok(())
}

/// Compares every result that any rank returned with the definition.
fn check_results(scenario: &Scenario, reports: &[Option<Report>]) -> Result<(), String> {
    let results = |number: usize| -> Vec<Option<&Vec<f32>>> {
        reports.iter().map(|report| report.as_ref()?.results.get(number)).collect()
    };
    for call in (0..).map(Call::new) {
        let found = results(call.number);
        if found.iter().all(Option::is_none) {
            break;
        }
        let data = scenario.data(call.step, call.layer);
        check_values(call.forward, &format!("{call:?}"), data, &found)?;
    }
    Ok(())
}

/// Compares what some ranks returned from forward or backward with the definition.
pub fn check_values(
    forward: bool,
    what: &str,
    [x, g]: [Vec<Batch>; 2],
    found: &[Option<&Vec<f32>>],
) -> Result<(), String> {
    let eps = 1e-5;
    if forward {
        let expected = common::definition(&x, None, eps).outputs;
        // What a rank does not have, it cannot have wrong.
        let rounded = |values: &Vec<f64>| values.iter().map(|value| *value as f32).collect();
        let found: Vec<Vec<f32>> = found
            .iter()
            .zip(&expected)
            .map(|(found, expected)| found.cloned().unwrap_or_else(|| rounded(expected)))
            .collect();
        return common::compare(&x, &found, &expected, common::TOLERANCE_ULP)
            .map(|_| ())
            .map_err(|wrong| format!("{what}: {wrong}"));
    }
    let x = Wide::new(&x);
    let g = Wide::new(&g);
    let expected =
        reference::backward_train(&x.ranks(), &g.ranks(), None, eps).expect("valid").grad_inputs;
    let var = reference::batch_statistics(&x.ranks()).expect("valid").var_biased;
    let largest = g.values.iter().flatten().fold(0f64, |largest, g| largest.max(g.abs()));
    let inv_std = var.iter().fold(0f64, |largest, var| largest.max(1.0 / (var + eps).sqrt()));
    for (rank, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let Some(found) = found else { continue };
        let far = |(found, expected): (&f32, &f64)| {
            let error = (f64::from(*found) - expected).abs();
            error.is_nan() || error > GRADIENT_TOLERANCE * inv_std * largest
        };
        if found.len() != expected.len() || found.iter().zip(expected).any(far) {
            return Err(format!("{what}, rank {rank}: {found:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

/// Batches in f64.
struct Wide {
    dims: Vec<Vec<usize>>,
    values: Vec<Vec<f64>>,
}

impl Wide {
    fn new(batches: &[Batch]) -> Self {
        let dims = batches.iter().map(|batch| batch.dims.clone()).collect();
        Self { dims, values: batches.iter().map(|batch| widened(&batch.values)).collect() }
    }

    fn ranks(&self) -> Vec<RankBatch<'_>> {
        self.dims
            .iter()
            .zip(&self.values)
            .map(|(dims, values)| RankBatch { dims, values })
            .collect()
    }
}
