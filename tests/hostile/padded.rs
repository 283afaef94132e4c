//! Padded samples under the hostile compiler: what must not leak is not multiplied by 0.

#[path = "../it/padded/batches.rs"]
mod batches;
#[path = "../it/padded/check.rs"]
mod check;

use crate::common;
use check::Amount;
use common::{Kind, one_in};

#[test]
fn padded_samples_follow_the_definition_of_what_counts() {
    check::check_all(
        |ranks| Kind::Gpu.devices(ranks),
        false,
        Amount { one_in: one_in(3), ..Amount::all(1) },
    );
}

#[test]
fn padded_samples_with_masks_follow_the_definition_of_what_counts() {
    check::check_all(
        |ranks| Kind::Gpu.devices(ranks),
        true,
        Amount { one_in: one_in(3), ..Amount::all(1) },
    );
}
