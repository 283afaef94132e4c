//! The conformance runner: the library against golden cases, on a software or real adapter and on
//! the host.
//!
//! `cargo test --test conformance` runs the folder `tests/golden` with its subfolders;
//! `SYNCBN_VECTORS` names another one. `SYNCBN_TEST_ADAPTER` narrows the adapters to those whose
//! name contains it; `host` leaves all of them out. A case is a test of the harness, and so is the
//! self-test: arguments are those of any test binary, a part of a name runs the cases that have it.
//!
//! An entry is one half (forward or backward) of one case in one place, through one driver: one
//! caller for all ranks, or one for each, in whole passes or step by step; and on a GPU one layer
//! that reads nothing back. It passes when everything that is checked of it is within tolerances,
//! when the ranks of a group have the same statistics to the bit after every step, and when the
//! drivers but the last give the same bits. What the library does not have yet is listed and
//! counted apart, and so are cases of another folder whose format is unknown. The last line has the
//! counts of entries; the exit status is 1 when anything failed.

mod agreement;
mod caller;
mod compare;
mod conditioning;
mod double;
mod entry;
mod epilogue;
mod formula;
mod generated;
mod golden;
mod inference;
mod library;
mod manifest;
mod message;
mod mindspore;
mod not_yet;
mod on_device;
mod oracle;
mod padded;
mod place;
mod procedural;
mod report;
mod scenario;
mod selftest;
mod selftest_ranks;
mod steps;
mod suite;
mod threads;
mod ulp;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use suite::Suite;

fn main() -> ExitCode {
    // One after the other: a case keeps every processor busy, and fingerprints depend on the order.
    let args = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let suite = match Suite::read() {
        Ok(suite) => suite,
        Err(what) => {
            println!("FAILED {what}");
            println!("conformance: 0 passed, 1 failed, 0 not yet");
            return ExitCode::FAILURE;
        }
    };
    let trials = suite.trials();
    let conclusion = libtest_mimic::run(&args, trials);
    let passed = if args.list {
        true
    } else if conclusion.num_filtered_out > 0 && suite.ran_nothing() {
        println!("conformance: filtered out");
        true
    } else {
        suite.finish() && !conclusion.has_failed()
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
