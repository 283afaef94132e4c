//! What the judge of trainings objects to: reports that it accepts, altered in one place each.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use syncbn::{Error, error::ExchangeError};

use crate::common;
use crate::faults::judge::SLACK;
use crate::faults::load;
use crate::faults::mixed::judge;
use crate::faults::mixed::rank::{self, Failure, Report};
use crate::faults::mixed::scenario::{Executor, Fault, STEP, Scenario, Way};
use crate::faults::random::SEED;
use crate::faults::survivors::{Ended, Survivor};

type Reports = Vec<Option<Report>>;

/// The first training on the host that fits, with reports that the judge accepts.
fn training(fits: impl Fn(&Scenario) -> bool) -> (Arc<Scenario>, Reports) {
    let mut drawn = (SEED..SEED + 100_000).map(|seed| Scenario::draw(seed, usize::MAX));
    let scenario = Arc::new(drawn.find(fits).expect("one of so many"));
    let is_late = |reports: &Reports| judge::is_late(&scenario, reports);
    let run = || rank::run(&scenario);
    let reports = load::run(scenario.deadline, run, is_late, &AtomicU64::new(0));
    judge::judge(&scenario, &reports).expect("a fault that every rank noticed");
    (scenario, reports)
}

/// One fault, in the forward call of one layer after calls of other steps, and everyone else goes
/// on.
fn is_plain(scenario: &Scenario, fault: Fault) -> bool {
    let call = scenario.calls[scenario.at];
    let before = || scenario.calls[..scenario.at].iter().any(|call| call.way.passes());
    matches!(scenario.faults[..], [(culprit, found)] if culprit > 0 && found == fault)
        && scenario.second.is_none()
        && scenario.world_size > 4
        && (call.way, call.forward) == (Way::Single(0), true)
        && before()
}

#[test]
fn the_judge_of_trainings_objects_to_another_fault_another_place_and_other_data() {
    let (scenario, reports) = training(|scenario| {
        is_plain(scenario, Fault::Leaves) && scenario.executor == Executor::OneThread
    });
    let other = |faults| Scenario { faults, ..Scenario::clone(&scenario) };
    let (culprit, _) = scenario.faults[0];
    // One that loses its device has other data, too.
    for fault in Fault::ALL.into_iter().filter(|fault| !fault.loses_device()) {
        let judged = judge::judge(&other(vec![(culprit, fault)]), &reports);
        assert_eq!(judged.is_err(), fault != Fault::Leaves, "{fault:?}: {judged:?}");
    }
    let another = (culprit + 1) % scenario.world_size;
    assert!(judge::judge(&other(vec![(another, Fault::Leaves)]), &reports).is_err());
    let elsewhere = Scenario { at: scenario.at + 1, ..Scenario::clone(&scenario) };
    assert!(judge::judge(&elsewhere, &reports).is_err());
    // Other data: the results are wrong then.
    let seed = scenario.seed + 1;
    assert!(judge::judge(&Scenario { seed, ..Scenario::clone(&scenario) }, &reports).is_err());
    let unnoticed = Arc::new(other(Vec::new()));
    assert!(judge::judge(&scenario, &rank::run(&unnoticed)).is_err());
}

fn failure(report: &mut Option<Report>) -> &mut Failure {
    let report = report.as_mut().expect("a rank that does not panic");
    report.failure.as_mut().expect("a failure")
}

fn survivor(report: &mut Option<Report>) -> &mut Survivor {
    let report = report.as_mut().expect("a rank that does not panic");
    report.survivor.as_mut().expect("a survivor").as_mut().expect("one that went on")
}

/// Gives every rank without a fault another error, and lets its group say the same.
fn all_say(
    scenario: &Scenario,
    reports: &mut Reports,
    of: impl Fn(ExchangeError) -> ExchangeError,
) {
    for rank in (0..scenario.world_size).filter(|&rank| !scenario.has_fault(rank)) {
        let failure = failure(&mut reports[rank]);
        let Error::Exchange(error) = &failure.error else { panic!("{:?}", failure.error) };
        let error = of(error.clone());
        let (at, cause) = ("the next exchange".to_owned(), error.to_string());
        failure.group = Some(error.clone());
        failure.next = Some(ExchangeError::Poisoned { at, cause }.into());
        failure.error = error.into();
    }
}

fn at(error: ExchangeError, of: impl Fn(&str) -> String) -> ExchangeError {
    match error {
        ExchangeError::Left { at, rank, panicked } => {
            ExchangeError::Left { at: of(&at), rank, panicked }
        }
        other => panic!("{other}"),
    }
}

/// The result of a rank that has normalized with its own batch alone.
fn alone(scenario: &Scenario, world_size: usize, step: usize) -> Vec<f32> {
    let [x, _] = scenario.of_survivors(world_size).data(step, 0);
    let y = common::definition(&x[..1], None, 1e-5).outputs.remove(0);
    y.into_iter().map(|y| y as f32).collect()
}

type Plant<'a> = (&'static str, Box<dyn Fn(&mut Reports) + 'a>);

#[test]
fn the_judge_of_trainings_objects_to_every_wrong_report_of_a_rank_without_a_fault() {
    let (scenario, reports) = training(|scenario| is_plain(scenario, Fault::Leaves));
    let (culprit, n) = (scenario.faults[0].0, scenario.world_size);
    let single = |way: Way| way == Way::Single(0);
    let say = |of: fn(ExchangeError) -> ExchangeError| {
        let scenario = scenario.clone();
        move |reports: &mut Reports| all_say(&scenario, reports, of)
    };
    let another = if culprit + 1 < n { culprit + 1 } else { culprit - 1 };
    let plants: Vec<Plant<'_>> = vec![
        (
            "a wrong rank",
            Box::new(|reports| {
                all_say(&scenario, reports, |error| match error {
                    ExchangeError::Left { at, panicked, .. } => {
                        ExchangeError::Left { at, rank: another, panicked }
                    }
                    other => panic!("{other}"),
                });
            }),
        ),
        (
            "a panic",
            Box::new(say(|error| match error {
                ExchangeError::Left { at, rank, .. } => {
                    ExchangeError::Left { at, rank, panicked: true }
                }
                other => panic!("{other}"),
            })),
        ),
        ("a wrong phase", Box::new(say(|error| at(error, |at| at.replace("forward", "backward"))))),
        (
            "a wrong layer",
            Box::new(say(|error| {
                at(error, |at| at.replace("layer 0 \"first\"", "layer 1 \"second\""))
            })),
        ),
        ("a wrong exchange", Box::new(say(|error| at(error, |at| format!("{at}0"))))),
        (
            "an error of one rank alone",
            Box::new(|reports| {
                let failure = failure(&mut reports[0]);
                failure.error = ExchangeError::Left {
                    at: "layer 0 \"first\", forward, exchange 0".to_owned(),
                    rank: culprit,
                    panicked: true,
                }
                .into();
            }),
        ),
        (
            "a late error",
            Box::new(|reports| {
                failure(&mut reports[0]).took = SLACK + Duration::from_millis(1);
            }),
        ),
        (
            "a late refusal",
            Box::new(|reports| {
                failure(&mut reports[0]).next_took = SLACK + Duration::from_millis(1);
            }),
        ),
        ("no refusal", Box::new(|reports| failure(&mut reports[0]).next = None)),
        ("a group that does not know", Box::new(|reports| failure(&mut reports[0]).group = None)),
        ("changed statistics", Box::new(|reports| failure(&mut reports[0]).unchanged = false)),
        (
            "a result of this rank alone",
            Box::new(|reports| {
                let number =
                    scenario.calls.iter().position(|call| single(call.way)).expect("a call");
                let step = scenario.calls[number].step;
                // The call with the fault has no result: it is the first of its kind at the latest.
                let number = number.min(scenario.at);
                let results = &mut reports[0].as_mut().expect("a report").results;
                if number < results.len() {
                    results[number] = vec![alone(&scenario, n, step)];
                } else {
                    results.push(vec![alone(&scenario, n, step)]);
                }
            }),
        ),
        (
            "a missing result",
            Box::new(|reports| {
                reports[0].as_mut().expect("a report").results.pop();
            }),
        ),
        ("success", Box::new(|reports| reports[0].as_mut().expect("a report").failure = None)),
        ("a panic of its own", Box::new(|reports| reports[0] = None)),
        (
            "a survivor that has normalized alone",
            Box::new(|reports| {
                let of_survivors = alone(&scenario, n - 1, STEP);
                survivor(&mut reports[0]).results[0] = of_survivors;
            }),
        ),
        (
            "a survivor without a result",
            Box::new(|reports| {
                survivor(&mut reports[0]).results.pop();
            }),
        ),
        (
            "a survivor in another group",
            Box::new(|reports| {
                survivor(&mut reports[0]).world_ranks.push(culprit);
            }),
        ),
        (
            "a survivor of other statistics",
            Box::new(|reports| {
                survivor(&mut reports[0]).running[0].num_batches_tracked += 1;
            }),
        ),
        (
            "a rank that stays behind",
            Box::new(|reports| {
                reports[0].as_mut().expect("a report").survivor = None;
            }),
        ),
        (
            "a culprit that goes on",
            Box::new(|reports| {
                let gone_on = survivor(&mut reports[0]).clone();
                reports[culprit].as_mut().expect("a report").survivor = Some(Ok(gone_on));
            }),
        ),
    ];
    for (what, plant) in plants {
        let mut altered = reports.clone();
        plant(&mut altered);
        assert!(judge::judge(&scenario, &altered).is_err(), "{what}");
    }
}

#[test]
fn the_judge_of_trainings_objects_to_a_wrong_report_of_the_rank_with_the_fault() {
    for fault in Fault::ALL.into_iter().filter(|fault| !fault.loses_device()) {
        let (scenario, reports) = training(|scenario| is_plain(scenario, fault));
        let (culprit, _) = scenario.faults[0];
        let objects = |what: &str, plant: &dyn Fn(&mut Option<Report>)| {
            let mut altered = reports.clone();
            plant(&mut altered[culprit]);
            assert!(judge::judge(&scenario, &altered).is_err(), "{fault:?}: {what}");
        };
        let Some(report) = &reports[culprit] else {
            objects("no panic", &|report| *report = Some(Report::default()));
            continue;
        };
        objects("a panic", &|report| *report = None);
        if report.failure.is_none() {
            continue;
        }
        objects("success", &|report| report.as_mut().expect("a report").failure = None);
        objects("another call", &|report| failure(report).call.number += 1);
        objects("changed statistics", &|report| failure(report).unchanged = false);
        objects("a late error", &|report| {
            failure(report).took = SLACK + Duration::from_millis(1);
        });
        objects("an error of another rank", &|report| {
            let at = "layer 0 \"first\", forward, exchange 0".to_owned();
            let left = ExchangeError::Left { at, rank: 0, panicked: false };
            failure(report).error = left.into();
        });
    }
}

/// A rank that has left is noticed at once, so nobody waits for the one that is late.
#[test]
fn the_judge_of_trainings_objects_to_waiting_for_a_late_rank_where_another_has_left() {
    let (scenario, mut reports) = training(|scenario| {
        let mut faults: Vec<Fault> = scenario.faults.iter().map(|(_, fault)| *fault).collect();
        faults.sort_unstable();
        faults == [Fault::Leaves, Fault::Late]
            && scenario.second.is_none()
            && scenario.calls[scenario.at].way == Way::Single(0)
    });
    let late = scenario.faults.iter().find(|(_, fault)| *fault == Fault::Late).expect("one").0;
    all_say(&scenario, &mut reports, |error| match error {
        ExchangeError::Left { at, .. } => {
            ExchangeError::Late { at, ranks: vec![late], deadline: scenario.deadline, own: false }
        }
        other => panic!("{other}"),
    });
    assert!(judge::judge(&scenario, &reports).is_err());
}
