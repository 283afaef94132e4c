//! What a test that fails prints, so that it can be run again: the seeds of the devices and the
//! line to type.
//!
//! Tests share devices, and what a test prints is shown with the test that fails and no other. So a
//! hook of panics prints it, not the opening of a device.

use std::collections::BTreeSet;
use std::sync::{Mutex, Once, PoisonError};

use super::common::{first_seed, without};

static SEEDS: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// Notes that a device of this seed is open.
pub fn note(seed: u64) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            let seeds = SEEDS.lock().unwrap_or_else(PoisonError::into_inner);
            let thread = std::thread::current();
            eprintln!(
                "devices of seeds {seeds:?}; again: {}",
                line(first_seed(), &without(), thread.name())
            );
        }));
    });
    SEEDS.lock().unwrap_or_else(PoisonError::into_inner).insert(seed);
}

/// The command line that runs a test, or all where its name is not that of the thread, on devices
/// from this seed on.
fn line(seed: u64, without: &str, test: Option<&str>) -> String {
    let without = if without.is_empty() {
        String::new()
    } else {
        format!("SYNCBN_HOSTILE_WITHOUT={without} ")
    };
    let only = match test {
        Some("main") | None => String::new(),
        Some(test) => format!(" -- --exact {test}"),
    };
    format!("SYNCBN_HOSTILE_SEED={seed} {without}cargo test --test hostile{only}")
}

#[test]
fn the_line_names_the_seed_the_test_and_what_is_left_out() {
    assert_eq!(
        line(11, "", Some("signs::backward")),
        "SYNCBN_HOSTILE_SEED=11 cargo test --test hostile -- --exact signs::backward"
    );
    assert_eq!(
        line(1, "contracts", Some("main")),
        "SYNCBN_HOSTILE_SEED=1 SYNCBN_HOSTILE_WITHOUT=contracts cargo test --test hostile"
    );
}
