//! The handle of a device: a GPU, or the host (CPU).
//!
//! Owns the choice between the two and the deadline of waits. Allocation lies in `tensor`, the
//! phases in `engine`.

#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "host")]
mod host;

use std::fmt;
use std::time::Duration;

use crate::error::{Error, GpuError};
pub use crate::fast_paths::FastPaths;
use crate::gpu::Gpu;
use crate::host::Threads;
pub use crate::probe::{Arithmetic, Defect, Findings};

/// Time after which a missing result means a lost device, unless [`Device::with_deadline`] sets
/// another. It is longer than any pass over the largest buffer takes on a software driver, and
/// short enough to notice.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

/// A GPU or the host (CPU), on which the tensors of one rank lie. Clones are handles of the same
/// device.
///
/// # Who polls
/// Results of a GPU arrive while it is polled. A future of this crate that waits for a result polls
/// the device itself for up to 200 µs. After that a thread of the device waits. So futures run
/// under any executor: `pollster::block_on`, tokio, or another. An application that polls its
/// device itself may go on doing so. In a browser the event loop polls.
#[derive(Clone, PartialEq)]
pub struct Device {
    kind: Kind,
    deadline: Duration,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Kind {
    Gpu(Gpu),
    Host(Threads),
}

impl Device {
    /// The fast paths that kernels on this GPU take. They are switched on, the device has their
    /// features, and the probe found them sound. [`findings`](Self::findings) has the reason if one
    /// is off. `None` for the host.
    pub fn fast_paths(&self) -> Option<FastPaths> {
        match &self.kind {
            Kind::Gpu(gpu) => Some(gpu.caps().fast_paths()),
            Kind::Host(_) => None,
        }
    }

    /// Results of the probe at the opening of the device, with the reasons of fast paths that are
    /// off although the device has their feature. `None` for the host, and if the probe could not
    /// run: on wgpu's no-op device, and for a device that the application made in a browser.
    pub fn findings(&self) -> Option<&Findings> {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.findings(),
            Kind::Host(_) => None,
        }
    }

    /// The same device with another limit for the time of a result (60 s by default).
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same device with timing: from now on every compute pass of this crate on it is timed,
    /// for all its handles.
    ///
    /// # Errors
    /// [`GpuError::NoTimestamps`] for the host, and for a device without the feature
    /// `TIMESTAMP_QUERY`.
    pub fn with_timestamps(self) -> Result<Self, Error> {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.start_clock()?,
            Kind::Host(_) => return Err(GpuError::NoTimestamps { device: self.to_string() }.into()),
        }
        Ok(self)
    }

    /// The device's own time of the compute passes that this crate has submitted since the last
    /// call, in sum. Each pass is timed from its beginning to its end. The call waits until they
    /// are done.
    ///
    /// # Errors
    /// [`GpuError::NoTimestamps`] before [`with_timestamps`](Self::with_timestamps);
    /// [`GpuError::TooManyPasses`] after more than 2048 passes, which are forgotten then;
    /// [`GpuError`] when the device is lost or the deadline passes.
    ///
    /// # Cancel safety
    /// A dropped future forgets the times that it was to return.
    pub async fn take_device_time(&self) -> Result<Duration, Error> {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.take_time(self.deadline).await,
            Kind::Host(_) => Err(GpuError::NoTimestamps { device: self.to_string() }.into()),
        }
    }

    /// The name of the adapter with its backend, or `host`.
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.name(),
            Kind::Host(_) => "host",
        }
    }

    /// Whether this is the host.
    pub fn is_host(&self) -> bool {
        matches!(self.kind, Kind::Host(_))
    }

    /// Waits until everything submitted to the device so far is done. The host is always done.
    ///
    /// # Errors
    /// [`GpuError`] when the device is lost or the deadline passes.
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn wait(&self) -> Result<(), Error> {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.wait(self.deadline).await,
            Kind::Host(_) => Ok(()),
        }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether two handles are of the same device; deadlines may differ.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.name()).finish()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
