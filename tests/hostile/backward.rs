//! Backward of a group: accuracy, NaN and infinity.

use super::common;

#[path = "../it/group_backward/accuracy.rs"]
mod accuracy;
#[path = "../it/group_backward/check.rs"]
mod check;
#[path = "../it/group_backward/compare.rs"]
mod compare;
#[path = "../it/group_backward/not_finite.rs"]
mod not_finite;
#[allow(dead_code)]
#[path = "../it/group_backward/problem.rs"]
mod problem;
#[path = "../it/group_backward/range.rs"]
mod range;
