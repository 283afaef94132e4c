//! Whether every rank of a drawn training saw what it should: right results, then an error in time
//! that names a rank with a fault and the place, then right results of the others without them.

use std::time::Duration;

use syncbn::{Error, error::ExchangeError};

use crate::faults::judge::{SLACK, check_values};
use crate::faults::mixed::calls::{lists, part};
use crate::faults::mixed::rank::{Failure, Report};
use crate::faults::mixed::scenario::{Call, Devices, Fault, Scenario, Way};
use crate::faults::scenario::{Scenario as Named, Then};
use crate::faults::survivors::{Ended, check_survivors};

type Reports = [Option<Report>];

/// The longest time that a rank waited for its error, or what is wrong.
pub fn judge(scenario: &Scenario, reports: &Reports) -> Result<Duration, String> {
    check_results(scenario, reports)?;
    let mut slowest = Duration::ZERO;
    let mut first: Option<(&ExchangeError, String)> = None;
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
        if report.results.len() != failure.call.number {
            return wrong("it has not the results of the calls before");
        }
        if is_slow(scenario, failure) {
            return wrong("the error came too late");
        }
        slowest = slowest.max(failure.took);
        if let Some(fault) = fault {
            if let Err(what) = check_own(scenario, (rank, fault), failure) {
                return wrong(what);
            }
            continue;
        }
        // Of two exchanges under way at once, the first may be over.
        let is_started = failure.call.way == Way::Started;
        if !failure.unchanged && !is_started {
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
        let refused = matches!(
            &failure.next,
            Some(Error::Exchange(ExchangeError::Poisoned { cause: said, .. }))
                if *said == cause.to_string()
        );
        if !refused {
            return wrong("the next call was not refused with the cause");
        }
        let Some(error) = exchange_error(&failure.error) else {
            return wrong("not an error of the exchange");
        };
        let is_named =
            scenario.faults.iter().any(|fault| names(scenario, *fault, failure.call, error));
        if !is_named || error != cause {
            return wrong("the error does not name a rank and what it did");
        }
        let said = match check_place(scenario, failure.call, &error.to_string()) {
            Ok(said) => said,
            Err(what) => return wrong(&what),
        };
        // Of two exchanges under way at once, ranks may be in either: the cause is one all the
        // same.
        if first
            .as_ref()
            .is_some_and(|(first, of_first)| *of_first != said || !is_started && *first != error)
        {
            return wrong("another error than the ranks before");
        }
        first = Some((error, said));
    }
    let outcomes: Vec<_> =
        reports.iter().map(|report| report.as_ref()?.survivor.as_ref()).collect();
    check_survivors(scenario, &outcomes).map(|()| slowest)
}

/// Whether an error came later than it may. Only for a rank that is late has a rank to wait. Of
/// GPUs in software the time is mostly that of the work before the exchange.
fn is_slow(scenario: &Scenario, failure: &Failure) -> bool {
    let is_late =
        matches!(exchange_error(&failure.error), Some(ExchangeError::Late { own: false, .. }));
    let waits = is_late || scenario.devices == Devices::Mixed;
    let limit = if waits { scenario.deadline + SLACK } else { SLACK };
    failure.took > limit || failure.next_took > SLACK
}

/// Whether a rank with a fault has had its own error, where it notices, or that of the other rank
/// with one.
fn check_own(
    scenario: &Scenario,
    (rank, fault): (usize, Fault),
    failure: &Failure,
) -> Result<(), &'static str> {
    use ExchangeError as E;
    if failure.call.number != scenario.at {
        return Err("it has not failed at the call of its fault");
    }
    // The device may be lost after the exchange.
    let may_change = failure.call.way == Way::Started || fault == Fault::LosesDeviceInside;
    if !failure.unchanged && !may_change {
        return Err("running statistics of the rank with the fault have changed");
    }
    let error =
        if let Error::Joint { error, .. } = &failure.error { error } else { &failure.error };
    let is_own = match (fault, error) {
        (Fault::Late, Error::Exchange(E::Late { ranks, own, .. })) => *own && ranks.contains(&rank),
        (Fault::Notifies, Error::Exchange(E::Poisoned { cause, .. })) => cause.ends_with("planted"),
        (Fault::BadShape, Error::Argument(_)) => true,
        (Fault::Garbage, Error::Exchange(E::Frame { rank: named, .. })) => *named == rank,
        (Fault::LosesDevice | Fault::LosesDeviceInside, Error::Gpu(_)) => true,
        _ => false,
    };
    let others = || scenario.faults.iter().filter(|(other, _)| *other != rank);
    let is_of_other = exchange_error(error)
        .is_some_and(|error| others().any(|other| names(scenario, *other, failure.call, error)));
    // One that is to panic, to leave or to drop its call does so whatever the others do; only one
    // that is to panic in the exchange may not come there.
    let stays = !matches!(fault, Fault::Panics | Fault::Leaves | Fault::DropsCall);
    if is_own || is_of_other && stays { Ok(()) } else { Err("it has another error than its own") }
}

/// Whether a rank that is not to be late is said to be, or an error came too late.
pub fn is_late(scenario: &Scenario, reports: &Reports) -> bool {
    let is_meant = |rank: &usize| scenario.fault(*rank) == Some(Fault::Late);
    reports.iter().flatten().filter_map(|report| report.failure.as_ref()).any(|failure| {
        is_slow(scenario, failure)
            || matches!(exchange_error(&failure.error), Some(ExchangeError::Late { ranks, .. })
                if !ranks.iter().all(is_meant))
    })
}

fn exchange_error(error: &Error) -> Option<&ExchangeError> {
    match error {
        Error::Exchange(error) => Some(error),
        Error::Joint { error, .. } => exchange_error(error),
        _ => None,
    }
}

/// Whether the error is of this fault, at this call.
fn names(
    scenario: &Scenario,
    (culprit, fault): (usize, Fault),
    call: Call,
    error: &ExchangeError,
) -> bool {
    use ExchangeError as E;
    let failed_with = |words: &'static str| {
        matches!(error, E::Aborted { rank, reason, .. }
            if *rank == culprit && reason.contains(words))
    };
    let left = |with_panic: bool| {
        matches!(error, E::Left { rank, panicked, .. }
            if *rank == culprit && *panicked == with_panic)
    };
    // The steps of a call taken one by one are the program's: where one fails that is no exchange,
    // the rank leaves.
    let left_between_steps = || call.way == Way::Started && left(false);
    match fault {
        Fault::Panics => left(true),
        Fault::PanicsInside => failed_with("it panicked"),
        Fault::Leaves => left(false),
        // Nobody waits for it where another rank has ended the exchange before; bytes that are no
        // message do only when all have come.
        Fault::Late => {
            let waits = |(_, fault): &(usize, Fault)| matches!(fault, Fault::Late | Fault::Garbage);
            let late = scenario.faults.iter().filter(|(_, fault)| *fault == Fault::Late);
            let mut late: Vec<usize> = late.map(|(rank, _)| *rank).collect();
            late.sort_unstable();
            matches!(error, E::Late { ranks, deadline, .. }
                if *ranks == late && *deadline == scenario.deadline)
                && scenario.faults.iter().all(waits)
        }
        // The call was over before it was dropped, and then the rank left.
        Fault::DropsCall => {
            failed_with("its call was dropped")
                || call.number > scenario.at && left(false)
                || left_between_steps()
        }
        Fault::Notifies => failed_with("it called abort: planted"),
        Fault::BadShape => {
            failed_with(": x has ") || failed_with(": grad_output has ") || left_between_steps()
        }
        Fault::Garbage => matches!(error, E::Frame { rank, .. } if *rank == culprit),
        // In the words of wgpu: a buffer is invalid, or the device is lost. The call may have
        // ended before, so that only reading its result fails, which is the program's.
        Fault::LosesDevice | Fault::LosesDeviceInside => {
            let ended = fault == Fault::LosesDeviceInside && call.number > scenario.at;
            ["is invalid", "lost", "destroyed"].into_iter().any(failed_with)
                || ended && left(false)
                || left_between_steps()
        }
    }
}

/// Whether an error names a layer of the call, its phase and its exchange, or what the group did.
/// Returns the rest of its text.
fn check_place(scenario: &Scenario, call: Call, text: &str) -> Result<String, String> {
    let phase = match call.way {
        Way::Share(_) => "broadcast of the state",
        Way::Sum => "all_reduce_sum",
        Way::Split => "partition into process groups",
        _ if call.forward => "forward",
        _ => "backward",
    };
    let layers = call.way.layers();
    // The exchange is the number of earlier calls of the layer, or of the group itself.
    let earlier = |is_of: &dyn Fn(&[usize]) -> bool| {
        scenario.calls[..call.number].iter().filter(|call| is_of(call.way.layers())).count()
    };
    let places = layers.iter().map(|layer| {
        let exchange = earlier(&|layers| layers.contains(layer));
        format!("layer {layer} {:?}, {phase}, exchange {exchange}: ", Named::name(*layer))
    });
    let mut places: Vec<String> = places.collect();
    if layers.is_empty() {
        let exchange = earlier(&<[usize]>::is_empty);
        places.push(format!("{phase}, exchange {exchange} of the group: "));
    }
    let rest = places.iter().find_map(|place| text.strip_prefix(place.as_str()));
    rest.map(str::to_owned).ok_or_else(|| format!("the error begins with none of {places:?}"))
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
