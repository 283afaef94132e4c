//! Thousands of faults drawn by seed, many groups at the same time, and a report of what came of
//! them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Random, on_threads};
use crate::faults::scenario::{Call, Executor, Fault, Scenario, Then};
use crate::faults::{judge, load, rank};

/// How many, unless `SYNCBN_FAULTS` says otherwise.
const FAULTS: u64 = 3000;
/// The first of the seeds, one for each fault, unless `SYNCBN_FAULTS_SEED` says otherwise.
pub const SEED: u64 = 20_260_101;
/// Groups that run at the same time. Those with a late rank mostly sleep; the others keep a machine
/// of two cores busy without delaying each other by anything near a deadline. What else the machine
/// has to do may: `load` measures it.
pub const GROUPS: usize = 8;
const DEADLINE: Duration = Duration::from_millis(200);

fn draw(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let world_size = 2 + random.below(15);
    let culprit = random.below(world_size);
    // Of half of the faults, another rank does not go on, or not at once.
    let other = (culprit + 1 + random.below(world_size - 1)) % world_size;
    let second = (random.below(2) == 0).then(|| (other, Then::ALL[random.below(Then::ALL.len())]));
    let executor = [Executor::Threads, Executor::Tasks][random.below(2)];
    loop {
        let fault = Fault::ALL[random.below(Fault::ALL.len())];
        let call = Call::all().nth(random.below(Call::all().count())).expect("a call");
        if fault.fits(call) {
            return Scenario {
                world_size,
                culprit,
                fault,
                second,
                call,
                deadline: DEADLINE,
                executor,
                seed,
            };
        }
    }
}

pub fn number(variable: &str) -> Option<u64> {
    let said = std::env::var(variable).ok()?;
    Some(said.parse().unwrap_or_else(|_| panic!("{variable} is a number, and not {said:?}")))
}

#[derive(Debug, Default)]
struct Row {
    count: usize,
    slowest: Duration,
    seed: u64,
}

#[test]
fn thousands_of_random_faults_end_in_time_and_no_result_is_wrong() {
    let faults = number("SYNCBN_FAULTS").unwrap_or(FAULTS);
    let first = number("SYNCBN_FAULTS_SEED").unwrap_or(SEED);
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let rows: Mutex<BTreeMap<(Fault, Option<Then>), Row>> = Mutex::default();
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let delayed = AtomicU64::new(0);
    on_threads((0..GROUPS).collect(), |_| {
        while let Some(seed) =
            Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < first + faults)
        {
            let scenario = draw(seed);
            let is_late = |reports: &Vec<_>| judge::is_late(&scenario, reports);
            let reports = load::run(DEADLINE, || rank::run(scenario), is_late, &delayed);
            match judge::judge(&scenario, &reports) {
                Ok(slowest) => {
                    let mut rows = rows.lock().expect("no panic");
                    let row = rows
                        .entry((scenario.fault, scenario.second.map(|(_, then)| then)))
                        .or_default();
                    row.count += 1;
                    if slowest > row.slowest {
                        (row.slowest, row.seed) = (slowest, seed);
                    }
                }
                Err(what) => wrong.lock().expect("no panic").push(format!("{scenario:?}: {what}")),
            }
        }
    });
    let rows = rows.into_inner().expect("no panic");
    let wrong = wrong.into_inner().expect("no panic");
    println!(
        "{faults} faults from seed {first}, deadline {DEADLINE:?}, in {:.1} s, {} delayed ones \
         again",
        began.elapsed().as_secs_f64(),
        delayed.into_inner()
    );
    println!("{:<16}{:<16}{:>6}  {:>10}  of seed", "fault", "then", "count", "slowest");
    for ((fault, then), Row { count, slowest, seed }) in &rows {
        let then = then.map_or_else(String::new, |then| format!("{then:?}"));
        let fault = format!("{fault:?}");
        let slowest = format!("{:.1} ms", slowest.as_secs_f64() * 1e3);
        println!("{fault:<16}{then:<16}{count:>6}  {slowest:>10}  {seed}");
    }
    assert!(wrong.is_empty(), "{} of {faults} went wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(rows.values().map(|row| row.count as u64).sum::<u64>(), faults);
    let kinds = Fault::ALL.len() * (1 + Then::ALL.len());
    assert!(rows.len() == kinds || faults < FAULTS, "{} of {kinds} kinds were drawn", rows.len());
}
