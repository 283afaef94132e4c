//! Purpose of an exchange.

use std::fmt;

/// Purpose of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Statistics of forward in training.
    Forward,
    /// Statistics of forward once more, for activation checkpointing.
    Recompute,
    /// Statistics of forward in evaluation, if it uses the group's batch.
    Evaluate,
    /// Gradient sums of backward.
    Backward,
    /// Parameters and running statistics of one rank for all.
    State,
    /// Process groups from a partition that every rank gives.
    Partition,
    /// Process groups from every rank's own list.
    Subgroup,
    /// The number of devices of every process.
    Devices,
    /// Sums of a program's values.
    AllReduce,
    /// Messages of a program.
    AllGather,
    /// Values of one rank for all.
    Broadcast,
    /// A barrier: no values.
    Barrier,
    /// Settings, or parts of states, of which the checksums differ.
    Comparison,
    /// Sums of double backward.
    DoubleBackward,
    /// Whether a rank has a batch for the next step.
    Steps,
}

impl Phase {
    /// In the order of their numbers in a frame.
    const ALL: [Self; 15] = [
        Self::Forward,
        Self::Recompute,
        Self::Evaluate,
        Self::Backward,
        Self::State,
        Self::Partition,
        Self::Subgroup,
        Self::Devices,
        Self::AllReduce,
        Self::AllGather,
        Self::Broadcast,
        Self::Barrier,
        Self::Comparison,
        Self::DoubleBackward,
        Self::Steps,
    ];

    /// The allowed numbers, for errors.
    pub(super) const ALLOWED: &'static str = "0 to 14";

    /// The phase of a number in a frame.
    pub(super) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether it exchanges a program's own values: its header counts values instead of channels.
    pub(in crate::collective) fn is_of_values(self) -> bool {
        matches!(self, Self::AllReduce | Self::Broadcast | Self::Steps)
    }

    /// Whether its header names a layer.
    pub(in crate::collective) fn is_of_a_layer(self) -> bool {
        match self {
            Self::Forward
            | Self::Recompute
            | Self::Evaluate
            | Self::Backward
            | Self::DoubleBackward
            | Self::State
            | Self::Devices
            | Self::Comparison => true,
            Self::Partition
            | Self::Subgroup
            | Self::AllReduce
            | Self::AllGather
            | Self::Broadcast
            | Self::Barrier
            | Self::Steps => false,
        }
    }

    /// Pairs of values in a node of an exchange of `channels` channels or values.
    pub(crate) fn pairs(self, channels: u64) -> u64 {
        match self {
            Self::DoubleBackward => channels.saturating_mul(4),
            _ if self.is_of_values() => channels.div_ceil(2),
            _ => channels,
        }
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
            Self::AllReduce => "all_reduce_sum",
            Self::AllGather => "all_gather",
            Self::Broadcast => "broadcast",
            Self::Barrier => "barrier",
            Self::Comparison => "comparison of what differs",
            Self::DoubleBackward => "double backward",
            Self::Steps => "uneven_steps",
        })
    }
}
