//! Trainings drawn by seed with one or two faults, in calls of every kind: single and joint ones,
//! exchanges that are started together, states that are shared, sums, partitions; over 2 to 16
//! ranks in threads, in tasks and on one thread; on the host and on GPUs, which may be lost.

mod calls;
mod judge;
mod planted;
mod rank;
mod scenario;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::on_threads;
use crate::faults::load;
use crate::faults::random::{GROUPS, SEED, number};
use scenario::{Fault, Scenario};

/// How many, unless `SYNCBN_FAULTS` says otherwise.
const TRAININGS: u64 = 700;
/// One in so many is on GPUs.
const GPU_OF: usize = 12;

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
            let is_late = |reports: &Vec<_>| judge::is_late(&scenario, reports);
            let run = || rank::run(&scenario);
            let reports = load::run(scenario.deadline, run, is_late, &delayed);
            match judge::judge(&scenario, &reports) {
                Ok(slowest) => add(&mut table.lock().expect("no panic"), &scenario, slowest),
                Err(what) => wrong.lock().expect("no panic").push(format!("{scenario:?}: {what}")),
            }
        }
    });
    let table = table.into_inner().expect("no panic");
    let wrong = wrong.into_inner().expect("no panic");
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
