//! Padded samples under the hostile compiler: what must not leak is not multiplied by 0.

use crate::common::epilogue::padded::{Amount, check_all};
use crate::common::{Kind, one_in};

#[test]
fn padded_samples_follow_the_definition_of_what_counts() {
    check_all(Kind::Gpu, false, Amount { one_in: one_in(3), ..Amount::all(1) });
}

#[test]
fn padded_samples_with_masks_follow_the_definition_of_what_counts() {
    check_all(Kind::Gpu, true, Amount { one_in: one_in(3), ..Amount::all(1) });
}
