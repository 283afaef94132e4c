//! Reports of a call of several steps: what its ranks had, and how long its steps lasted.

use std::time::Duration;

use super::{GlobalGradientSums, LocalGradientSums, LocalStatistics};

/// What the ranks of a forward call had, and how long its steps lasted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ForwardReport {
    /// Statistics of each rank's own input; of no rank where running or given statistics
    /// normalized.
    pub local: LocalStatistics,
    /// Times of the steps.
    pub times: PhaseTimes,
}

/// What the ranks of a backward call had, and how long its steps lasted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackwardReport {
    /// Sums over each rank's own values.
    pub local: LocalGradientSums,
    /// Sums over all ranks; `None` where nothing was exchanged.
    pub global: Option<GlobalGradientSums>,
    /// Times of the steps.
    pub times: PhaseTimes,
}

/// Wall-clock times of the steps of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhaseTimes {
    /// Local sums on all devices, from submission until the last one was read back. Where every
    /// rank is on the host of this process, outputs are computed with them, channel by channel, and
    /// their time is in this one.
    pub local: Duration,
    /// Merging over all ranks, with the wait for those of others.
    pub synchronize: Duration,
    /// Outputs on all devices, until their submission; on the host, until they are there.
    pub apply: Duration,
}
