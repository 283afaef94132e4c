//! Backward of a group: accuracy, NaN and infinity.

use super::common;

#[path = "../group_backward/accuracy.rs"]
mod accuracy;
#[path = "../group_backward/check.rs"]
mod check;
#[path = "../group_backward/compare.rs"]
mod compare;
#[path = "../group_backward/not_finite.rs"]
mod not_finite;
#[allow(dead_code)]
#[path = "../group_backward/problem.rs"]
mod problem;
#[path = "../group_backward/range.rs"]
mod range;
