//! The conformance runner: the library against golden cases, on a software or real adapter and on
//! the host.
//!
//! `cargo test --test conformance` runs the folder `tests/golden` with its subfolders;
//! `SYNCBN_VECTORS` names another one. `SYNCBN_TEST_ADAPTER` narrows the adapters to those whose
//! name contains it; `host` leaves all of them out.
//!
//! An entry is one half (forward or backward) of one case in one place, through one driver: one
//! caller for all ranks, or one for each, in whole passes or step by step; and on a GPU one layer
//! that reads nothing back. It passes when everything that is checked of it is within tolerances,
//! when the ranks of a group have the same statistics to the bit after every step, and when the
//! drivers but the last give the same bits. What the library does not have yet is listed and
//! counted apart. The last line has the counts; the exit status is 1 when anything failed.

mod agreement;
mod caller;
mod compare;
mod conditioning;
mod entry;
mod epilogue;
mod formula;
mod generated;
mod golden;
mod harness;
mod inference;
mod library;
mod message;
mod mindspore;
mod not_yet;
mod on_device;
mod oracle;
mod place;
mod procedural;
mod random;
mod report;
mod scenario;
mod selftest;
mod selftest_ranks;
mod steps;
mod store;
mod threads;
mod ulp;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use compare::{Part, Verdict};
use entry::{Entry, State};
use generated::Generated;
use harness::Request;
use library::Driver;
use place::{Place, places};
use report::{Report, Where};
use scenario::{Group, Observed, Scenario, judge_case};

fn main() -> ExitCode {
    match harness::request(env::args().skip(1)) {
        Request::List(listing) => {
            print!("{listing}");
            ExitCode::SUCCESS
        }
        Request::FilteredOut => {
            println!("{}: filtered out", harness::NAME);
            ExitCode::SUCCESS
        }
        Request::Run => match run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(what) => {
                println!("FAILED {what}");
                println!("conformance: 0 passed, 1 failed, 0 not yet");
                ExitCode::FAILURE
            }
        },
    }
}

fn run() -> Result<bool, String> {
    let started = Instant::now();
    let other = env::var_os("SYNCBN_VECTORS").map(PathBuf::from);
    let own = other.is_none();
    let root =
        other.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    println!("cases: {}", root.display());
    let entries = entry::read(&root)?;
    let generated = generated::cases()?;
    println!(
        "generated: {}",
        generated.iter().map(Generated::title).collect::<Vec<String>>().join(", ")
    );

    let ready = entries.iter().filter_map(|entry| match &entry.state {
        State::Ready(case) => Some(&case[..]),
        _ => None,
    });
    let made = generated.iter().map(|case| &case.groups[..]);
    let tested =
        selftest::run(ready, own, made).map_err(|what| format!("the self-test: {what}"))?;
    println!(
        "self-test: {} checks refused twice their tolerance, {} wrong formulas were caught",
        tested.perturbed, tested.wrong_formulas
    );
    println!(
        "self-test: the definition in f64 agrees with {} stored cases, within {:.1e} of the tolerances ({})",
        tested.oracle_cases, tested.oracle_share, tested.oracle_share_at
    );

    let mut report = Report::default();
    tested.unfit.iter().for_each(|(case, what)| report.broken(case, what));
    let worlds = entries.iter().map(|entry| entry.world);
    let largest = worlds.chain(generated.iter().map(Generated::world)).max().unwrap_or(1);
    let places = places(largest)?;
    for entry in &entries {
        if let State::Broken(what) = &entry.state {
            report.broken(&entry.name, what);
        }
    }
    for place in &places {
        let started = Instant::now();
        entries.iter().for_each(|entry| run_entry(entry, place, &mut report));
        for Generated { groups, .. } in
            generated.iter().filter(|case| case.world() >= place.smallest_world)
        {
            run_case(
                groups,
                &groups[0].scenario.kind,
                &[Part::Forward, Part::Backward],
                place,
                &mut report,
            );
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{}: {seconds:.1} s, process groups made by {}", place.name, place.form);
        println!("{}: fingerprint {:016x}", place.name, report.fingerprint());
    }
    println!("all: {:.1} s", started.elapsed().as_secs_f64());
    Ok(report.finish())
}

fn run_entry(entry: &Entry, place: &Place, report: &mut Report) {
    if entry.world < place.smallest_world {
        return;
    }
    match &entry.state {
        State::Broken(_) => {}
        State::NotYet(reason) => {
            let counted = entry.parts.iter().flat_map(|&part| Driver::ALIKE.map(|_| part));
            counted.for_each(|part| report.not_yet(&entry.name, part, reason));
        }
        State::Ready(case) => run_case(case, &entry.name, &entry.parts, place, report),
    }
}

/// Through each driver; all of them must observe the same bits, but for the layer that stays on one
/// device.
fn run_case(case: &[Group], name: &str, parts: &[Part], place: &Place, report: &mut Report) {
    let mut first: Option<(Driver, Vec<Vec<Observed>>)> = None;
    for driver in Driver::ALIKE {
        let mut observed = library::observe(case, place, driver);
        if let (Ok(observed), Some((other, expected))) = (&mut observed, &first) {
            for ((group, observed), expected) in case.iter().zip(observed).zip(expected) {
                agreement::compare_drivers(group, observed, expected, other.name());
            }
        }
        judge(case, &observed, (name, parts), Where { place: &place.name, driver }, report);
        first = first.or_else(|| Some((driver, observed.ok()?)));
    }
    if let Some((_, observed)) = &first {
        report.saw(observed.iter().flatten());
    }
    if place.is_one_gpu() {
        let (case, driver) = (on_device::checked(case), Driver::OnDevice);
        let observed = library::observe(&case, place, driver);
        judge(&case, &observed, (name, parts), Where { place: &place.name, driver }, report);
    }
}

fn judge(
    case: &[Group],
    observed: &Result<Vec<Vec<Observed>>, String>,
    (name, parts): (&str, &[Part]),
    at: Where<'_>,
    report: &mut Report,
) {
    let Scenario { kind, ulp_bound, .. } = &case[0].scenario;
    for &part in parts {
        let verdict = match observed {
            Ok(observed) => judge_case(case, observed, part),
            Err(what) => Verdict::failed(what.clone()),
        };
        report.ran(name, kind, part, at, *ulp_bound, verdict);
    }
}
