//! Padded sequences: of every sample the first positions count, and nothing else has a part.
//!
//! What counts is drawn as one packed batch, which the definition normalizes; the call gets it
//! spread over padded samples, between NaN, infinities and 1e30. `batches` spreads and gathers,
//! `check` compares, `ways` has other ways to the same result, `refused` what does not fit.

mod batches;
mod check;
mod refused;
mod ways;

use crate::common;
use crate::common::devices::Kind;

use check::{Amount, check_all};

#[test]
fn padded_samples_follow_the_definition_of_what_counts_on_the_host() {
    check_all(|ranks| Kind::Host.devices(ranks), false, Amount::all(2));
}

#[test]
fn padded_samples_follow_the_definition_of_what_counts_on_gpus() {
    check_all(|ranks| Kind::Gpu.devices(ranks), false, Amount::all(2));
}

#[test]
fn padded_samples_follow_the_definition_of_what_counts_in_mixed_groups_with_masks() {
    check_all(|ranks| Kind::Mixed.devices(ranks), true, Amount::all(1));
}
