//! Owns the contents of a report, in the form of its JSON.

use serde::Serialize;

use crate::bench::report::Line;
use crate::judge::{Worst, Wrong};
use crate::layers::Merge;
use crate::machine::Facts;
use crate::problem::Problem;

/// Everything that a report says.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of this crate.
    pub version: &'static str,
    /// Operating system and architecture.
    pub system: String,
    pub machine: Facts,
    /// Golden cases.
    pub conformance: Vec<Checked>,
    /// Storage types, layouts and epilogues.
    pub kernels: Vec<Checked>,
    /// Hard cases.
    pub accuracy: Vec<Checked>,
    /// Passes beside copies, with the exchange beside a round trip.
    pub passes: Vec<Timed>,
    /// Rows of those that were not begun for want of time.
    pub passes_left_out: usize,
    pub failures: Vec<Failure>,
    /// What each section took.
    pub seconds: Vec<(&'static str, f64)>,
}

/// A case that was put to a layer, or several of one kind.
#[derive(Debug, Serialize)]
pub struct Checked {
    pub case: String,
    pub merge: Merge,
    pub passed: bool,
    /// The largest error of each output; empty where the layer gave none.
    pub worst: Vec<Worst>,
}

/// A pass that was timed.
#[derive(Debug, Serialize)]
pub struct Timed {
    pub merge: Merge,
    /// With the keys of the bench tool's JSON.
    #[serde(flatten)]
    pub line: Line,
}

/// Something that went wrong.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The section's name.
    pub section: &'static str,
    pub case: String,
    pub merge: Merge,
    /// The first value that is wrong, or the error.
    pub what: String,
    /// Absent where nothing smaller than the case itself was found to fail.
    pub smallest: Option<Smallest>,
}

/// The smallest input that fails.
#[derive(Debug, Serialize)]
pub struct Smallest {
    pub wrong: Wrong,
    pub problem: Problem,
}
