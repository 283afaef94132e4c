//! Backward of a group: accuracy, NaN and infinity.

use super::common;
use super::common::backward::{compare, problem};

#[path = "../it/group_backward/accuracy.rs"]
mod accuracy;
#[path = "../it/group_backward/not_finite.rs"]
mod not_finite;
#[path = "../it/group_backward/range.rs"]
mod range;
