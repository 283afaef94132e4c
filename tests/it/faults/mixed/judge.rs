//! Whether every rank of a drawn training saw what it should: right results, then an error in time
//! that names a rank with a fault and the place, then right results of the others without them.

use std::time::Duration;

use syncbn::{Error, error::ExchangeError};

use crate::faults::judge::{SLACK, check_values};
use crate::faults::mixed::calls::{lists, part};
use crate::faults::mixed::rank::{Report, STEP, Survivor};
use crate::faults::mixed::scenario::{Call, Fault, Scenario, Way};
use crate::faults::scenario::{Scenario as Named, Then};

type Reports = [Option<Report>];

/// The longest time that a rank waited for its error, or what is wrong.
pub fn judge(scenario: &Scenario, reports: &Reports) -> Result<Duration, String> {
    check_results(scenario, reports)?;
    let mut slowest = Duration::ZERO;
    let mut first: Option<&ExchangeError> = None;
    for (rank, report) in reports.iter().enumerate() {
        let wrong = |what: &str| {
            Err(format!("rank {rank}: {what}: {:?}", report.as_ref().map(|r| &r.failure)))
        };
        let fault = scenario.fault(rank);
        let Some(report) = report else {
            let panics = matches!(fault, Some(Fault::Panics | Fault::PanicsInside))
                || scenario.then(rank) == Some(Then::Panics);
            if panics { continue } else { return wrong("it panicked") }
        };
        let Some(failure) = &report.failure else {
            let gone = matches!(fault, Some(Fault::Leaves | Fault::DropsCall));
            if gone { continue } else { return wrong("no error") }
        };
        if failure.took > scenario.deadline + SLACK || failure.next_took > SLACK {
            return wrong("the error came too late");
        }
        slowest = slowest.max(failure.took);
        // A rank with a fault may have another error than the others: it knows more.
        if fault.is_some() {
            continue;
        }
        // Of two exchanges under way at once, the first may be over.
        if !failure.unchanged && failure.call.way != Way::Started {
            return wrong("running statistics have changed");
        }
        let later = scenario.faults.iter().all(|(_, fault)| fault.may_be_noticed_later());
        let after = failure.call.number.wrapping_sub(scenario.at);
        if after > usize::from(later) {
            return wrong("it failed at another call");
        }
        let Some(cause) = &failure.group else {
            return wrong("the group does not know that it has failed");
        };
        let refused = matches!(&failure.next, Some(Error::Exchange(ExchangeError::Poisoned { cause: said, .. }))
            if *said == cause.to_string());
        if !refused {
            return wrong("the next call was not refused with the cause");
        }
        let Some(error) = exchange_error(&failure.error) else {
            return wrong("not an error of the exchange");
        };
        let is_named = scenario.faults.iter().any(|fault| names(scenario, *fault, error));
        if !is_named || error != cause {
            return wrong("the error does not name a rank and what it did");
        }
        if let Err(what) = check_place(failure.call, &error.to_string()) {
            return wrong(&what);
        }
        // Those in the other exchange of two that are under way at once name that one.
        if failure.call.way != Way::Started {
            if first.is_some_and(|first| first != error) {
                return wrong("another error than the ranks before");
            }
            first = Some(error);
        }
    }
    check_survivors(scenario, reports).map(|()| slowest)
}

/// Whether some rank says that one is late which has no fault that makes it so: the machine has
/// delayed that one for longer than the deadline.
pub fn is_delayed(scenario: &Scenario, reports: &Reports) -> bool {
    let is_meant = |rank: &usize| scenario.fault(*rank) == Some(Fault::Late);
    let failures = reports.iter().flatten().filter_map(|report| report.failure.as_ref());
    failures.filter_map(|failure| exchange_error(&failure.error)).any(
        |error| matches!(error, ExchangeError::Late { ranks, .. } if !ranks.iter().all(is_meant)),
    )
}

fn exchange_error(error: &Error) -> Option<&ExchangeError> {
    match error {
        Error::Exchange(error) => Some(error),
        Error::Joint { error, .. } => exchange_error(error),
        _ => None,
    }
}

/// Whether the error is of this fault.
fn names(scenario: &Scenario, (culprit, fault): (usize, Fault), error: &ExchangeError) -> bool {
    use ExchangeError as E;
    let failed_with = |words: &'static str| {
        matches!(error, E::Aborted { rank, reason, .. }
            if *rank == culprit && reason.contains(words))
    };
    let left = |with_panic: bool| {
        matches!(error, E::Left { rank, panicked, .. }
            if *rank == culprit && *panicked == with_panic)
    };
    match fault {
        Fault::Panics => left(true),
        Fault::PanicsInside => failed_with("it panicked"),
        Fault::Leaves => left(false),
        Fault::Late => matches!(error, E::Late { ranks, deadline, own, .. }
            if ranks.contains(&culprit) && *deadline == scenario.deadline && !own
                && ranks.iter().all(|rank| scenario.fault(*rank) == Some(Fault::Late))),
        // The call was over before it was dropped, and then the rank left; or a step of it that
        // is no exchange was.
        Fault::DropsCall => failed_with("its call was dropped") || left(false),
        Fault::Tells => failed_with("it called abort: planted"),
        // The steps of a call taken one by one are the program's: it leaves.
        Fault::BadShape => failed_with("[0]") || left(false),
        Fault::Garbage => matches!(error, E::Frame { rank, .. } if *rank == culprit),
        // In the words of wgpu: a buffer is invalid, or the device is lost.
        Fault::LosesDevice | Fault::LosesDeviceInside => {
            ["is invalid", "lost", "destroyed"].into_iter().any(failed_with) || left(false)
        }
    }
}

/// Whether an error names a layer of the call and its phase, or what the group did.
fn check_place(call: Call, text: &str) -> Result<(), String> {
    let phase = match call.way {
        Way::Share(_) => "broadcast of the state",
        Way::Sum => "all_reduce_sum",
        Way::Split => "partition into process groups",
        _ if call.forward => "forward",
        _ => "backward",
    };
    let layers = call.way.layers();
    let places = layers
        .iter()
        .map(|layer| format!("layer {layer} {:?}, {phase}, exchange ", Named::name(*layer)));
    let mut places: Vec<String> = places.collect();
    if layers.is_empty() {
        places.push(format!("{phase}, exchange "));
    }
    if places.iter().any(|place| text.starts_with(place.as_str())) {
        Ok(())
    } else {
        Err(format!("the error begins with none of {places:?}"))
    }
}

/// Compares every result that any rank returned with the definition.
fn check_results(scenario: &Scenario, reports: &Reports) -> Result<(), String> {
    for &call in &scenario.calls {
        let found: Vec<_> = reports
            .iter()
            .map(|report| report.as_ref().and_then(|report| report.results.get(call.number)))
            .collect();
        for (place, &layer) in call.way.layers().iter().enumerate() {
            let found: Vec<_> =
                found.iter().map(|found| found.map(|found| &found[place])).collect();
            let what = format!("{call:?}, layer {layer}");
            if let Way::Share(_) = call.way {
                let are_ones = found.iter().flatten().all(|w| w.iter().all(|w| *w == 1.0));
                if !are_ones {
                    return Err(format!("{what}: {found:?}"));
                }
                continue;
            }
            check_values(call.forward, &what, scenario.data(call.step, layer), &found)?;
        }
        let ranks = scenario.world_size;
        for (rank, found) in found.iter().enumerate() {
            let expected: Vec<f32> = match call.way {
                Way::Sum => (0..ranks)
                    .map(part)
                    .fold(vec![0.0; 2], |sum, part| vec![sum[0] + part[0], sum[1] + part[1]]),
                Way::Split => lists(ranks)[rank % 2].iter().map(|rank| *rank as f32).collect(),
                _ => continue,
            };
            if found.is_some_and(|found| found[0] != expected) {
                return Err(format!("{call:?}, rank {rank}: {found:?}, expected {expected:?}"));
            }
        }
    }
    Ok(())
}

/// Whether a rank must go on. One that drops its question may have had the answer at once.
fn goes_on(scenario: &Scenario, reports: &Reports, rank: usize) -> bool {
    let has_answer = || reports[rank].as_ref().is_some_and(|report| report.survivor.is_some());
    scenario.fault(rank).is_none()
        && match scenario.then(rank) {
            Some(Then::Panics | Then::Leaves) => false,
            Some(Then::DropsSurvivors) => has_answer(),
            Some(Then::IsSlow) | None => true,
        }
}

/// All ranks without a fault, but the one that does something else then, have gone on with a right
/// step.
fn check_survivors(scenario: &Scenario, reports: &Reports) -> Result<(), String> {
    let survivors: Vec<usize> =
        (0..scenario.world_size).filter(|&rank| goes_on(scenario, reports, rank)).collect();
    let mut found: Vec<&Survivor> = Vec::new();
    for &rank in &survivors {
        let survivor = reports[rank].as_ref().and_then(|report| report.survivor.as_ref());
        let Some(survivor) = survivor else { return Err(format!("rank {rank} has not gone on")) };
        let survivor = survivor.as_ref().map_err(|error| format!("rank {rank}: {error}"))?;
        if survivor.world_ranks != survivors {
            return Err(format!("rank {rank} goes on with {:?}", survivor.world_ranks));
        }
        found.push(survivor);
    }
    if found.windows(2).any(|pair| pair[0].running != pair[1].running) {
        return Err("running statistics of survivors differ".to_owned());
    }
    let alone = Scenario { world_size: survivors.len(), faults: Vec::new(), ..scenario.clone() };
    for (number, (layer, forward)) in
        [(0, true), (1, true), (1, false), (0, false)].into_iter().enumerate()
    {
        let results: Vec<_> =
            found.iter().map(|survivor| survivor.results.get(number).map(|all| &all[0])).collect();
        if results.iter().any(Option::is_none) {
            return Err(format!("a survivor has no result {number}"));
        }
        if !results.is_empty() {
            let what = format!("survivors, layer {layer}, forward {forward}");
            check_values(forward, &what, alone.data(STEP, layer), &results)?;
        }
    }
    Ok(())
}
