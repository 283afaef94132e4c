//! What the judge of trainings objects to: reports that it accepts, altered in one place each.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use syncbn::{Error, error::ExchangeError};

use crate::common;
use crate::faults::judge::SLACK;
use crate::faults::load;
use crate::faults::mixed::calls::Output;
use crate::faults::mixed::judge;
use crate::faults::mixed::rank::{self, Failure, Report};
use crate::faults::mixed::scenario::{Call, Executor, Fault, STEP, Scenario, Way};
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

/// The judge must refuse the reports in these words.
fn assert_refused(scenario: &Scenario, reports: &Reports, what: &str, words: &str) {
    let said = judge::judge(scenario, reports).expect_err(what);
    assert!(said.contains(words), "{what}: {said}");
}

fn failure(report: &mut Option<Report>) -> &mut Failure {
    let report = report.as_mut().expect("a rank that does not panic");
    report.failure.as_mut().expect("a failure")
}

fn survivor(report: &mut Option<Report>) -> &mut Survivor {
    let report = report.as_mut().expect("a rank that does not panic");
    report.survivor.as_mut().expect("a survivor").as_mut().expect("one that went on")
}

fn results(report: &mut Option<Report>) -> &mut Vec<Output> {
    &mut report.as_mut().expect("a rank that does not panic").results
}

/// Gives a rank another error, and lets its group say the same.
fn says(failure: &mut Failure, of: impl Fn(ExchangeError) -> ExchangeError) {
    let Error::Exchange(error) = &failure.error else { panic!("{:?}", failure.error) };
    let error = of(error.clone());
    let at = "the next exchange".to_owned();
    let cause = error.to_string();
    failure.group = Some(error.clone());
    failure.next = Some(ExchangeError::Poisoned { at, cause }.into());
    failure.error = error.into();
}

/// The same of every rank without a fault.
fn all_say(
    scenario: &Scenario,
    reports: &mut Reports,
    of: impl Fn(ExchangeError) -> ExchangeError,
) {
    for rank in (0..scenario.world_size).filter(|&rank| !scenario.has_fault(rank)) {
        says(failure(&mut reports[rank]), &of);
    }
}

/// The error of a rank that has left, with another place, rank, or kind of leaving.
fn altered(
    error: ExchangeError,
    alter: impl Fn(&mut String, &mut usize, &mut bool),
) -> ExchangeError {
    let ExchangeError::Left { mut at, mut rank, mut panicked } = error else { panic!("{error}") };
    alter(&mut at, &mut rank, &mut panicked);
    ExchangeError::Left { at, rank, panicked }
}

/// The result of a rank that has normalized with its own batch alone.
fn alone(scenario: &Scenario, world_size: usize, step: usize) -> Vec<f32> {
    let [x, _] = scenario.of_survivors(world_size).data(step, 0);
    let y = common::definition(&x[..1], None, 1e-5).outputs.remove(0);
    y.into_iter().map(|y| y as f32).collect()
}

/// The first of the calls before the fault that gives every rank such a result.
fn first_forward(scenario: &Scenario) -> Option<Call> {
    let is_one = |call: &&Call| (call.way, call.forward) == (Way::Single(0), true);
    scenario.calls[..scenario.at].iter().find(is_one).copied()
}

const LATE: &str = "the error came too late";
const UNNAMED: &str = "the error does not name a rank and what it did";
const ELSEWHERE: &str = "the error begins with none of";

#[test]
fn the_judge_of_trainings_objects_to_every_wrong_report_of_a_rank_without_a_fault() {
    let (scenario, reports) =
        training(|scenario| is_plain(scenario, Fault::Leaves) && first_forward(scenario).is_some());
    let culprit = scenario.faults[0].0;
    let n = scenario.world_size;
    let objects = |what: &str, words: &str, plant: &dyn Fn(&mut Reports)| {
        let mut reports = reports.clone();
        plant(&mut reports);
        assert_refused(&scenario, &reports, what, words);
    };
    let all_alter = |what: &str, words: &str, alter: fn(&mut String, &mut usize, &mut bool)| {
        objects(what, words, &|reports| {
            all_say(&scenario, reports, |error| altered(error, alter));
        });
    };
    let late = SLACK + Duration::from_millis(1);
    objects("a wrong rank", UNNAMED, &|reports| {
        let another = if culprit + 1 < n { culprit + 1 } else { culprit - 1 };
        all_say(&scenario, reports, |error| altered(error, |_, rank, _| *rank = another));
    });
    all_alter("a panic", UNNAMED, |_, _, panicked| *panicked = true);
    all_alter("a wrong phase", ELSEWHERE, |at, _, _| *at = at.replace("forward", "backward"));
    all_alter("a wrong layer", ELSEWHERE, |at, _, _| {
        *at = at.replace("layer 0 \"first\"", "layer 1 \"second\"");
    });
    all_alter("a wrong exchange", ELSEWHERE, |at, _, _| at.push('0'));
    objects("an error that is not the group's", UNNAMED, &|reports| {
        let failure = failure(&mut reports[0]);
        let Error::Exchange(error) = failure.error.clone() else { panic!("{:?}", failure.error) };
        failure.error = altered(error, |at, _, _| at.push('0')).into();
    });
    objects("a late error", LATE, &|reports| failure(&mut reports[0]).took = late);
    objects("a late refusal", LATE, &|reports| failure(&mut reports[0]).next_took = late);
    objects("no refusal", "the next call was not refused with the cause", &|reports| {
        failure(&mut reports[0]).next = None;
    });
    objects("silence", "the group does not know that it has failed", &|reports| {
        failure(&mut reports[0]).group = None;
    });
    objects("changed statistics", "running statistics have changed", &|reports| {
        failure(&mut reports[0]).unchanged = false;
    });
    let call = first_forward(&scenario).expect("a call");
    let words = format!("{call:?}, layer 0: rank 0 of dims");
    objects("a result of this rank alone", &words, &|reports| {
        results(&mut reports[0])[call.number] = vec![alone(&scenario, n, call.step)];
    });
    objects("a missing result", "it has not the results of the calls before", &|reports| {
        results(&mut reports[0]).pop();
    });
    objects("success", "no error", &|reports| {
        reports[0].as_mut().expect("a report").failure = None;
    });
    objects("a panic of its own", "it panicked", &|reports| reports[0] = None);
    objects("a survivor that has normalized alone", "survivors, Call", &|reports| {
        survivor(&mut reports[0]).results[0] = alone(&scenario, n - 1, STEP);
    });
    objects("a survivor without a result", "a survivor has no result of", &|reports| {
        survivor(&mut reports[0]).results.pop();
    });
    objects("a survivor in another group", "rank 0 goes on with", &|reports| {
        survivor(&mut reports[0]).world_ranks.push(culprit);
    });
    let words = "running statistics of survivors differ";
    objects("a survivor of other statistics", words, &|reports| {
        survivor(&mut reports[0]).running[0].num_batches_tracked += 1;
    });
    objects("a rank that stays behind", "rank 0 has not gone on", &|reports| {
        reports[0].as_mut().expect("a report").survivor = None;
    });
    let words = format!("rank {culprit} has asked who goes on");
    objects("a culprit that goes on", &words, &|reports| {
        let gone_on = survivor(&mut reports[0]).clone();
        reports[culprit].as_mut().expect("a report").survivor = Some(Ok(gone_on));
    });
}

/// It names the rank and its fault, in words that may differ between scenarios, but not between
/// ranks.
#[test]
fn the_judge_of_trainings_objects_to_an_error_of_one_rank_alone() {
    let (scenario, mut reports) = training(|scenario| is_plain(scenario, Fault::Notifies));
    says(failure(&mut reports[0]), |error| {
        let ExchangeError::Aborted { at, rank, reason } = error else { panic!("{error}") };
        assert_eq!(reason, "it called abort: planted");
        ExchangeError::Aborted { at, rank, reason: reason + ", again" }
    });
    let words = "another error than the ranks before";
    assert_refused(&scenario, &reports, "an error of one rank alone", words);
}

#[test]
fn the_judge_of_trainings_objects_to_a_wrong_report_of_the_rank_with_the_fault() {
    for fault in Fault::ALL.into_iter().filter(|fault| !fault.loses_device()) {
        let (scenario, reports) = training(|scenario| is_plain(scenario, fault));
        let (culprit, _) = scenario.faults[0];
        let objects = |what: &str, words: &str, plant: &dyn Fn(&mut Option<Report>)| {
            let mut reports = reports.clone();
            plant(&mut reports[culprit]);
            assert_refused(&scenario, &reports, &format!("{fault:?}: {what}"), words);
        };
        let Some(report) = &reports[culprit] else {
            objects("no panic", "no error", &|report| *report = Some(Report::default()));
            continue;
        };
        objects("a panic", "it panicked", &|report| *report = None);
        if report.failure.is_none() {
            continue;
        }
        objects("success", "no error", &|report| {
            report.as_mut().expect("a report").failure = None;
        });
        objects("another call", "it has not the results of the calls before", &|report| {
            failure(report).call.number += 1;
        });
        let words = "it has not failed at the call of its fault";
        objects("the call before", words, &|report| {
            results(report).pop();
            failure(report).call.number -= 1;
        });
        let words = "running statistics of the rank with the fault have changed";
        objects("changed statistics", words, &|report| failure(report).unchanged = false);
        objects("a late error", LATE, &|report| {
            failure(report).took = SLACK + Duration::from_millis(1);
        });
        objects("an error of another rank", "it has another error than its own", &|report| {
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
    assert_refused(&scenario, &reports, "waiting for the late rank", UNNAMED);
}
