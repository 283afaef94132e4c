//! The digits under Burn's trainer, over one, two and three devices: the workers are its threads,
//! which fork the model for every step. Losses are those of the whole batch, whatever it is cut
//! into, and a last batch with fewer samples than workers ends at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../syncbn-burn/examples/train_digits/data.rs"]
#[allow(dead_code, reason = "the samples are used here, not their order of training")]
mod data;
#[path = "../../../syncbn-burn/examples/train_digits/model.rs"]
mod model;
mod training;

use std::time::Instant;

use burn::train::MultiDeviceOptim;

use data::Digits;
use training::{DEADLINE, Run, STEPS, opened, train};

/// Whatever ends the reading of the digits.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How far losses of equal samples may be apart, relative: rounding of another order, which grows
/// from step to step.
const ROUNDING: f32 = 1e-4;

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    println!("{what}: {found:?}, expected {expected:?}");
    approx::assert_relative_eq!(found, expected, max_relative = ROUNDING);
}

#[test]
fn one_two_and_three_workers_train_alike_and_an_uneven_end_is_not_late() {
    let digits = Digits::load().unwrap();
    let opened = opened(3);
    let whole =
        train(Run { workers: 1, optim: MultiDeviceOptim::OptimMainDevice }, &opened, &digits);
    assert_eq!(whole.losses.len(), STEPS);
    for (workers, optim) in [
        (2, MultiDeviceOptim::OptimMainDevice),
        // Of two samples in the last step, the second worker has none.
        (3, MultiDeviceOptim::OptimMainDevice),
        (2, MultiDeviceOptim::OptimSharded),
    ] {
        let started = Instant::now();
        let found = train(Run { workers, optim }, &opened, &digits);
        assert!(started.elapsed() < DEADLINE, "somebody waited for the deadline");
        let what = format!("{workers} workers, {optim:?}");
        assert_close(&found.losses, &whole.losses, &format!("{what}, training"));
        // By the running statistics.
        assert_close(&found.evaluated, &whole.evaluated, &format!("{what}, evaluation"));
    }
    // Steps differ from each other by far more.
    let [first, last] = [whole.losses[0], whole.losses[STEPS - 2]];
    assert!((first - last).abs() > 1000.0 * ROUNDING * first, "{:?}", whole.losses);
}
