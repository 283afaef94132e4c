//! Reports of a call: local values of its ranks, and times of its steps.

use std::time::Duration;

use super::{GlobalGradientSums, LocalGradientSums, LocalStatistics};

/// Local statistics of a forward call, and times of its steps.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ForwardReport {
    /// Statistics of each rank's own input. Without ranks if running or given statistics
    /// normalized.
    pub local: LocalStatistics,
    /// Times of the steps.
    pub times: PhaseTimes,
}

/// Gradient sums of a backward call, and times of its steps.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackwardReport {
    /// Sums over each rank's own values.
    pub local: LocalGradientSums,
    /// Sums over all ranks. `None` if nothing was exchanged.
    pub global: Option<GlobalGradientSums>,
    /// Times of the steps.
    pub times: PhaseTimes,
}

/// Wall-clock times of the steps of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhaseTimes {
    /// Local sums on all devices, from submission until the last one was read back. If every rank
    /// is on the host of this process, outputs are computed with them, channel by channel. This
    /// time then includes them.
    pub local: Duration,
    /// Merging over all ranks, including the wait for other processes.
    pub synchronize: Duration,
    /// Outputs on all devices, until their submission. On the host, until they are computed.
    pub apply: Duration,
}
