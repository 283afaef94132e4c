//! Limits of a device, and failures of a device.

use std::time::Duration;

/// A tensor that a device cannot hold, bind or dispatch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// More bytes than one storage binding of the device.
    #[error(
        "{what} of dims {dims:?} is {found_bytes} bytes, the device binds at most {allowed_bytes} \
        bytes at a time"
    )]
    Binding {
        /// Name of the buffer.
        what: &'static str,
        /// The tensor's dimensions.
        dims: Vec<usize>,
        /// Bytes needed.
        found_bytes: u64,
        /// `max_storage_buffer_binding_size` of the device.
        allowed_bytes: u64,
    },
    /// More bytes than one buffer of the device.
    #[error(
        "a tensor of dims {dims:?} is {found_bytes} bytes, the device's largest buffer is \
        {allowed_bytes} bytes"
    )]
    Buffer {
        /// The tensor's dimensions.
        dims: Vec<usize>,
        /// Bytes needed.
        found_bytes: u64,
        /// `max_buffer_size` of the device.
        allowed_bytes: u64,
    },
    /// More bytes than the host's allocator has.
    #[error("a tensor of dims {dims:?} is {found_bytes} bytes, which the host has no memory for")]
    HostMemory {
        /// The tensor's dimensions.
        dims: Vec<usize>,
        /// Bytes needed.
        found_bytes: u64,
    },
    /// More workgroups than a dispatch of the device.
    #[error("dims {dims:?} need {found} workgroups, the device dispatches at most {allowed}")]
    Workgroups {
        /// The tensor's dimensions.
        dims: Vec<usize>,
        /// Workgroups needed.
        found: u64,
        /// Square of `max_compute_workgroups_per_dimension`.
        allowed: u64,
    },
    /// More values per channel than the sums of integers on one device hold.
    #[error(
        "sums of integers of {found} values per channel, on one device they hold at most {allowed}"
    )]
    Values {
        /// Values per channel of all ranks.
        found: u64,
        /// The most.
        allowed: u64,
    },
    /// A device below the portable baseline.
    #[error("{device}: {limit} is {found}, expected at least {expected}")]
    Device {
        /// Name of the device.
        device: String,
        /// Name of the limit.
        limit: &'static str,
        /// Value of the device.
        found: u64,
        /// Smallest value for the kernels.
        expected: u64,
    },
}

/// A failure of a GPU or its driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// No adapter answers the request.
    #[error(
        "no adapter was found{}; install a Vulkan, Metal or DX12 driver, or use Device::host()",
        if wanted.is_empty() { String::new() } else { format!(" for {wanted}") }
    )]
    NoAdapter {
        /// The adapter that was asked for. Empty for any.
        wanted: String,
    },
    /// The adapter did not give a device.
    #[error("adapter {adapter} did not give a device: {message}")]
    RequestDevice {
        /// Name of the adapter.
        adapter: String,
        /// The driver's words.
        message: String,
    },
    /// wgpu refused a command: often a buffer of another device.
    #[error("{device}: {phase} was refused: {message}")]
    Refused {
        /// Name of the device.
        device: String,
        /// The work that was being done.
        phase: &'static str,
        /// wgpu's words.
        message: String,
    },
    /// The device ran out of memory.
    #[error("{device}: out of memory in {phase}: {message}")]
    OutOfMemory {
        /// Name of the device.
        device: String,
        /// The work that was being done.
        phase: &'static str,
        /// wgpu's words.
        message: String,
    },
    /// A result did not arrive: the device is lost or was destroyed.
    #[error("{device}: reading results failed, the device may be lost: {message}")]
    Readback {
        /// Name of the device.
        device: String,
        /// wgpu's words.
        message: String,
    },
    /// Times were requested from a device without timing.
    #[error(
        "{device} takes no times: it needs the feature TIMESTAMP_QUERY and Device::with_timestamps"
    )]
    NoTimestamps {
        /// Name of the device.
        device: String,
    },
    /// More passes than there are places for times.
    #[error(
        "{device}: {found} passes since times were last taken, there is room for {allowed}; take \
        them more often"
    )]
    TooManyPasses {
        /// Name of the device.
        device: String,
        /// Passes since times were last taken.
        found: u32,
        /// Passes that can be timed.
        allowed: u32,
    },
    /// A result did not arrive in time.
    #[error(
        "{device}: no result within {deadline:?}; raise Device::with_deadline if the work is that \
        long"
    )]
    Timeout {
        /// Name of the device.
        device: String,
        /// The deadline that passed.
        deadline: Duration,
    },
}
