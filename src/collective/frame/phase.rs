//! What an exchange is for.

use std::fmt;

/// What an exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Statistics of forward in training.
    Forward,
    /// Statistics of forward once more, for activation checkpointing.
    Recompute,
    /// Statistics of forward in evaluation, where it uses the group's.
    Evaluate,
    /// Gradient sums of backward.
    Backward,
    /// Parameters and running statistics of one rank for all.
    State,
    /// The making of process groups by their partition.
    Partition,
    /// The making of process groups by every rank's own.
    Subgroup,
    /// How many devices every process holds.
    Devices,
}

impl Phase {
    /// In the order of their numbers in a frame.
    const ALL: [Self; 8] = [
        Self::Forward,
        Self::Recompute,
        Self::Evaluate,
        Self::Backward,
        Self::State,
        Self::Partition,
        Self::Subgroup,
        Self::Devices,
    ];

    /// Which numbers there are, for errors.
    pub(super) const ALLOWED: &'static str = "0 to 7";

    /// The phase of a number in a frame.
    pub(super) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Recompute => "recomputed forward",
            Self::Evaluate => "forward in evaluation",
            Self::Backward => "backward",
            Self::State => "broadcast of the state",
            Self::Partition => "partition into process groups",
            Self::Subgroup => "making of a subgroup",
            Self::Devices => "numbers of devices",
        })
    }
}
