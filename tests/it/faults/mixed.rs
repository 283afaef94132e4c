//! Trainings drawn by seed with one or two faults, in calls of every kind: single and joint ones,
//! exchanges that are started together, states that are shared, sums, partitions; over 2 to 16
//! ranks in threads, in tasks and on one thread; on the host and on GPUs, which may be lost.

mod calls;
mod judge;
mod rank;
mod scenario;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::on_threads;
use crate::faults::random::{GROUPS, SEED, number};
use scenario::{Executor, Fault, Scenario};

/// How many, unless `SYNCBN_FAULTS` says otherwise.
const TRAININGS: u64 = 700;
/// One in so many is on GPUs.
const GPU_OF: usize = 12;
/// How often a training runs again of which the machine has delayed a rank.
const AGAIN: usize = 3;

/// The slowest error of a kind.
#[derive(Debug, Default)]
struct Row {
    count: usize,
    slowest: Duration,
    seed: u64,
}

/// Rows by the name of what they have in common.
type Table = BTreeMap<(&'static str, String), Row>;

fn add(table: &mut Table, scenario: &Scenario, slowest: Duration) {
    let name = |what: &dyn Debug| format!("{what:?}");
    let kinds = match &scenario.faults[..] {
        [(_, fault)] => vec![("fault", name(fault))],
        faults => faults.iter().map(|(_, fault)| ("fault, of two", name(fault))).collect(),
    };
    let then = scenario.second.map_or("nothing".to_owned(), |(_, then)| name(&then));
    let others = [
        ("call", scenario.calls[scenario.at].way.name().to_owned()),
        ("while survivors agree", then),
        ("ranks are", name(&scenario.executor)),
        ("devices", name(&scenario.devices)),
    ];
    for key in kinds.into_iter().chain(others) {
        let row = table.entry(key).or_default();
        row.count += 1;
        if slowest >= row.slowest {
            (row.slowest, row.seed) = (slowest, scenario.seed);
        }
    }
}

#[test]
fn random_faults_in_calls_of_every_kind_end_in_time_and_no_result_is_wrong() {
    let trainings = number("SYNCBN_FAULTS").unwrap_or(TRAININGS);
    let first = number("SYNCBN_FAULTS_SEED").unwrap_or(SEED);
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let table: Mutex<Table> = Mutex::default();
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let delayed = AtomicU64::new(0);
    on_threads((0..GROUPS).collect(), |_| {
        while let Some(seed) =
            Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < first + trainings)
        {
            let scenario = Arc::new(Scenario::draw(seed, GPU_OF));
            let mut reports = rank::run(&scenario);
            // A machine that gave a rank no core for the whole deadline says nothing of the
            // library. A fault that makes others late would do so again.
            for _ in 0..AGAIN {
                if !judge::is_delayed(&scenario, &reports) {
                    break;
                }
                delayed.fetch_add(1, Ordering::Relaxed);
                reports = rank::run(&scenario);
            }
            match judge::judge(&scenario, &reports) {
                Ok(slowest) => add(&mut table.lock().expect("no panic"), &scenario, slowest),
                Err(what) => wrong.lock().expect("no panic").push(format!("{scenario:?}: {what}")),
            }
        }
    });
    let (table, wrong) =
        (table.into_inner().expect("no panic"), wrong.into_inner().expect("no panic"));
    let took = began.elapsed().as_secs_f64();
    let delayed = delayed.into_inner();
    println!(
        "{trainings} trainings from seed {first} in {took:.1} s, {delayed} delayed ones again"
    );
    println!("{:<22}{:<20}{:>6}  {:>10}  of seed", "", "", "count", "slowest");
    for ((what, kind), Row { count, slowest, seed }) in &table {
        let slowest = format!("{:.1} ms", slowest.as_secs_f64() * 1e3);
        println!("{what:<22}{kind:<20}{count:>6}  {slowest:>10}  {seed}");
    }
    assert!(wrong.is_empty(), "{} of {trainings} went wrong:\n{}", wrong.len(), wrong.join("\n"));
    let kinds = table.keys().filter(|(what, _)| what.starts_with("fault")).count();
    let expected = 2 * Fault::ALL.len();
    assert!(kinds == expected || trainings < TRAININGS, "{kinds} of {expected} kinds were drawn");
}

/// The judge must object to a training without its fault, with another, and with other data.
#[test]
fn the_judge_of_trainings_catches_what_it_is_for() {
    let fits = |scenario: &Scenario| {
        scenario.faults.len() == 1
            && scenario.faults[0].1 == Fault::Leaves
            && scenario.second.is_none()
            && scenario.executor == Executor::OneThread
            && scenario.calls[..scenario.at].iter().any(|call| call.way.passes())
            && scenario.world_size > 2
    };
    let scenario = (SEED..).map(|seed| Scenario::draw(seed, usize::MAX)).find(fits);
    let scenario = Arc::new(scenario.expect("one of the first thousands"));
    let reports = rank::run(&scenario);
    judge::judge(&scenario, &reports).expect("a fault that every rank noticed");
    let other = |faults| Scenario { faults, ..Scenario::clone(&scenario) };
    let (culprit, _) = scenario.faults[0];
    for fault in Fault::ALL.into_iter().filter(|fault| {
        // Of these a rank that leaves is what is seen, if the call was over, or one of its steps.
        !matches!(fault, Fault::Leaves | Fault::DropsCall | Fault::BadShape)
            && !fault.loses_device()
    }) {
        assert!(judge::judge(&other(vec![(culprit, fault)]), &reports).is_err(), "{fault:?}");
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
