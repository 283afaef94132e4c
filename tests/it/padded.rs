//! Padded sequences: of every sample the first positions count, and nothing else has a part.
//!
//! What counts is drawn as one packed batch, which the definition normalizes; the call gets it
//! spread over padded samples, between NaN, infinities and 1e30. `ways` has other ways to the same
//! result, `refused` what does not fit.

mod refused;
mod ways;

use crate::common;
use crate::common::devices::Kind;
use crate::common::epilogue::padded::{Amount, check_all};

#[test]
fn padded_samples_follow_the_definition_of_what_counts_on_the_host() {
    check_all(Kind::Host, false, Amount::all(2));
}

#[test]
fn padded_samples_follow_the_definition_of_what_counts_on_gpus() {
    check_all(Kind::Gpu, false, Amount::all(2));
}

#[test]
fn padded_samples_follow_the_definition_of_what_counts_in_mixed_groups_with_masks() {
    check_all(Kind::Mixed, true, Amount::all(1));
}
