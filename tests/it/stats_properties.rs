//! Properties of the host mathematics in `syncbn::stats`, on random batches against exact integer
//! arithmetic.
//!
//! `batch.rs` makes the batches and derives the bounds, `merge.rs` judges the formula of merging,
//! `tree.rs` the order of merging, `running.rs` what comes after: finalizing and the running
//! update.

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

mod batch;
mod merge;
mod running;
mod tree;

const SEED: u64 = 0x5eed_0001;

type Outcome = Result<(), TestCaseError>;

/// Runs a property over a strategy; a failure prints the seed and the smallest input.
fn check<S: Strategy>(strategy: S, property: impl Fn(S::Value) -> Outcome) {
    let config = ProptestConfig {
        cases: 400,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(SEED),
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, property);
    outcome.unwrap_or_else(|failure| panic!("seed {SEED:#x}: {failure}"));
}

fn near(what: &str, found: f64, expected: f64, bound: f64) -> Outcome {
    let error = (found - expected).abs();
    prop_assert!(
        error <= bound,
        "{what}: found {found:e}, expected {expected:e}, error {error:e}, bound {bound:e}"
    );
    Ok(())
}
