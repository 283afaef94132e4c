//! Owns the contents of a report, in the form of its JSON.

use serde::{Serialize, Serializer};

use crate::judge::{Worst, Wrong};
use crate::layers::Merge;
use crate::machine::Facts;
use crate::problem::Problem;
use syncbn_bench::output::Line;

/// Goes up when a key of the JSON is renamed, removed or given another meaning.
pub const SCHEMA: u32 = 2;

/// Everything that a report says.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether there are no failures.
    pub passed: bool,
    /// Whether fewer cases were checked and fewer repeats timed.
    pub quick: bool,
    /// Of syncbn.
    pub version: &'static str,
    /// Version of wgpu.
    pub wgpu: &'static str,
    /// Operating system and architecture.
    pub system: String,
    pub machine: Facts,
    /// Golden cases.
    pub conformance: Vec<Checked>,
    /// Storage types, layouts and epilogues.
    pub kernels: Vec<Checked>,
    /// Hard cases.
    pub accuracy: Vec<Checked>,
    /// Passes beside copies, with the exchange beside two bare programs.
    pub passes: Vec<Timed>,
    /// Rows of passes that did not begin in time.
    pub passes_left_out: usize,
    pub failures: Vec<Failure>,
    /// Time of each section.
    #[serde(serialize_with = "as_object")]
    pub seconds: Vec<(&'static str, f64)>,
}

impl Report {
    /// In one line.
    pub fn verdict(&self) -> String {
        match self.failures.len() {
            0 => "Everything passed.".to_owned(),
            count => format!("{count} FAILED: see the end of the report."),
        }
    }
}

/// Names and values as an object, in their order.
pub fn as_object<V: Serialize, S: Serializer>(
    pairs: &[(&'static str, V)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
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
