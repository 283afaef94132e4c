//! Thousands of faults drawn by seed, many groups at the same time, and a report of what came of
//! them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Random, on_threads};
use crate::faults::scenario::{Call, Executor, Fault, Scenario};
use crate::faults::{judge, rank};

const FAULTS: u64 = 3000;
/// The first of the seeds, one for each fault.
const SEED: u64 = 20_260_101;
/// Groups that run at the same time. Those with a late rank mostly sleep; the others keep a machine
/// of two cores busy without delaying each other by anything near a deadline.
const GROUPS: usize = 8;
const DEADLINE: Duration = Duration::from_millis(200);

fn draw(seed: u64) -> Scenario {
    let mut random = Random(seed);
    let world_size = 2 + random.below(7);
    let culprit = random.below(world_size);
    let executor = [Executor::Threads, Executor::Tasks][random.below(2)];
    loop {
        let fault = Fault::ALL[random.below(Fault::ALL.len())];
        let call = Call::all().nth(random.below(Call::all().count())).expect("a call");
        if fault.fits(call) {
            return Scenario {
                world_size,
                culprit,
                fault,
                call,
                deadline: DEADLINE,
                executor,
                seed,
            };
        }
    }
}

#[derive(Debug, Default)]
struct Row {
    count: usize,
    slowest: Duration,
    seed: u64,
}

#[test]
fn thousands_of_random_faults_end_in_time_and_no_result_is_wrong() {
    let began = Instant::now();
    let next = AtomicU64::new(SEED);
    let rows: Mutex<BTreeMap<Fault, Row>> = Mutex::default();
    let wrong: Mutex<Vec<String>> = Mutex::default();
    on_threads((0..GROUPS).collect(), |_| {
        while let Some(seed) =
            Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < SEED + FAULTS)
        {
            let scenario = draw(seed);
            match judge::judge(&scenario, &rank::run(scenario)) {
                Ok(slowest) => {
                    let mut rows = rows.lock().expect("no panic");
                    let row = rows.entry(scenario.fault).or_default();
                    row.count += 1;
                    if slowest > row.slowest {
                        (row.slowest, row.seed) = (slowest, seed);
                    }
                }
                Err(what) => wrong.lock().expect("no panic").push(format!("{scenario:?}: {what}")),
            }
        }
    });
    let (rows, wrong) =
        (rows.into_inner().expect("no panic"), wrong.into_inner().expect("no panic"));
    println!(
        "{FAULTS} faults from seed {SEED}, deadline {DEADLINE:?}, in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    println!("{:<16}{:>6}  {:>10}  of seed", "fault", "count", "slowest");
    for (fault, Row { count, slowest, seed }) in &rows {
        let (fault, slowest) =
            (format!("{fault:?}"), format!("{:.1} ms", slowest.as_secs_f64() * 1e3));
        println!("{fault:<16}{count:>6}  {slowest:>10}  {seed}");
    }
    assert!(wrong.is_empty(), "{} of {FAULTS} went wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(rows.values().map(|row| row.count as u64).sum::<u64>(), FAULTS);
    assert_eq!(rows.len(), Fault::ALL.len(), "every kind was drawn");
}
