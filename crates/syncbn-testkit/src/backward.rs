//! Backward of a group: problems, what the definition says of them, and comparisons.

pub mod compare;
pub mod problem;
