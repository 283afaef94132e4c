//! Owns what is timed, and what both sides must be able to do.

use std::error::Error;
use std::time::Duration;

/// The work that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Forward in training.
    Forward,
    /// Forward in training and the gradients of input, weight and bias, for an upstream gradient of
    /// ones.
    ForwardBackward,
    /// Forward with the running statistics.
    Eval,
}

/// Runs of a step that are not counted.
pub const WARM_UP: usize = 3;

impl Step {
    /// In the order in which they run.
    pub const ALL: [Self; 3] = [Self::Forward, Self::ForwardBackward, Self::Eval];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::ForwardBackward => "forward and backward",
            Self::Eval => "eval",
        }
    }
}

/// One of the two.
pub trait Contender {
    /// Runs a step until the device is done.
    fn time(&mut self, step: Step) -> Result<Duration, Box<dyn Error>>;
}
