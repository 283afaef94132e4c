//! Every error of the crate: the argument, what was found, what is allowed, and what to do.
//!
//! One small enum per subject; [`Error`] is their union for callers who do not care which.

use std::time::Duration;

use crate::dtype::DType;
use crate::shape::Layout;

/// Any error of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Dimensions that no activation can have.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A setting outside its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An argument of a call that does not fit the group, the layer or another argument.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A tensor that a device cannot bind or dispatch.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A failure of a GPU, its driver, or the use of a buffer that belongs to another device.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A batch from which no statistics can be taken.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A state that is not one of the layer.
    #[error(transparent)]
    State(#[from] StateError),
    /// Process groups that cannot be made.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// An exchange with other ranks that failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

/// Dimensions that no activation can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Fewer than two dimensions.
    #[error("dims {dims:?} have {} dimension(s), expected at least 2: (N, C, spatial…)", dims.len())]
    Rank {
        /// The dimensions found.
        dims: Vec<usize>,
    },
    /// C = 0.
    #[error("dims {dims:?} have 0 channels at axis 1, expected at least 1")]
    NoChannels {
        /// The dimensions found.
        dims: Vec<usize>,
    },
    /// More elements than `u64` counts.
    #[error("dims {dims:?} have more elements than 64 bits count")]
    TooLarge {
        /// The dimensions found.
        dims: Vec<usize>,
    },
}

/// A setting of the layer outside its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A numeric setting outside its range.
    #[error("{name} is {found}, allowed: {allowed}")]
    OutOfRange {
        /// Name of the setting.
        name: &'static str,
        /// The value found.
        found: f64,
        /// The range allowed, in words.
        allowed: &'static str,
    },
    /// Two settings that exclude each other.
    #[error("{setting} needs {needs}")]
    Conflict {
        /// The setting as found.
        setting: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A name of initial values that does not exist for a vector.
    #[error(
        "no initial values are called {found:?}; valid: ones, one, zeros, zero, normal, uniform, truncatednormal, or a number"
    )]
    Initializer {
        /// The name found.
        found: String,
    },
    /// Initial values of the wrong length.
    #[error("{name} holds {found} value(s), expected num_features = {expected}")]
    InitialLength {
        /// Name of the setting.
        name: &'static str,
        /// Values found.
        found: usize,
        /// The layer's `num_features`.
        expected: usize,
    },
    /// A setting that another framework's layer does not have.
    #[error("{layer} cannot express {setting}: {instead}")]
    NotExpressible {
        /// The framework's layer.
        layer: &'static str,
        /// The setting.
        setting: &'static str,
        /// What it does or wants instead.
        instead: &'static str,
    },
    /// A group without a device.
    #[error("a device group needs at least 1 device, found 0; use Device::host() where there is no GPU")]
    NoDevices,
}

/// An argument of a call that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentError {
    /// A list with another length than the group has ranks.
    #[error("{argument} holds {found} tensor(s), expected {expected}: one per rank of the group")]
    RankCount {
        /// Name of the argument.
        argument: &'static str,
        /// Tensors found.
        found: usize,
        /// Ranks of the group.
        expected: usize,
    },
    /// A tensor whose dimensions no activation can have.
    #[error("{argument}[{rank}]: {source}")]
    Shape {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list.
        rank: usize,
        /// What is wrong with the dimensions.
        source: ShapeError,
    },
    /// A tensor with another number of channels than the layer.
    #[error("{argument}[{rank}] has {found} channels (dims {dims:?}), expected num_features = {expected}")]
    Channels {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list.
        rank: usize,
        /// The tensor's dimensions.
        dims: Vec<usize>,
        /// Channels found.
        found: usize,
        /// The layer's `num_features`.
        expected: usize,
    },
    /// A tensor with another shape than its counterpart.
    #[error("{argument}[{rank}] has dims {found:?}, expected {expected:?}")]
    Dims {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list.
        rank: usize,
        /// The dimensions found.
        found: Vec<usize>,
        /// The dimensions of its counterpart.
        expected: Vec<usize>,
    },
    /// Values or a tensor of a storage type that does not go with the others.
    #[error("{argument} is stored as {found}, expected {expected}")]
    DType {
        /// Name of the argument.
        argument: String,
        /// The storage type found.
        found: DType,
        /// What goes with the others.
        expected: String,
    },
    /// A tensor of another layout than its counterpart.
    #[error("{argument}[{rank}] is in layout {found:?}, expected {expected:?}, as its input")]
    Layout {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list.
        rank: usize,
        /// The layout found.
        found: Layout,
        /// The layout of its counterpart.
        expected: Layout,
    },
    /// A tensor on another device than its rank.
    #[error("{argument}[{rank}] lies on {found}, expected {expected}, the device of rank {rank}")]
    WrongDevice {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list.
        rank: usize,
        /// The device of the tensor.
        found: String,
        /// The device of the rank.
        expected: String,
    },
    /// An output that shares bytes with an input or with another output.
    #[error("{argument}[{rank}] overlaps {other}[{other_rank}] in one buffer; give it a range of its own")]
    Overlap {
        /// Name of the output.
        argument: &'static str,
        /// Rank of the output.
        rank: usize,
        /// Name of the other tensor.
        other: &'static str,
        /// Rank of the other tensor.
        other_rank: usize,
    },
    /// A list of values of the wrong length.
    #[error("{argument} holds {found} value(s), expected {expected}")]
    Length {
        /// Name of the argument.
        argument: &'static str,
        /// Values found.
        found: u64,
        /// Values expected.
        expected: u64,
    },
    /// A buffer slice that does not start or end where it may.
    #[error("the slice at offset {offset_bytes} of {size_bytes} bytes does not fit the buffer of {buffer_bytes} bytes")]
    SliceSize {
        /// Start of the slice.
        offset_bytes: u64,
        /// Length of the slice.
        size_bytes: u64,
        /// Size of the buffer.
        buffer_bytes: u64,
    },
    /// A buffer slice that starts at an offset the device cannot bind.
    #[error("offset {offset_bytes} is not a multiple of {alignment_bytes}, the device's storage buffer alignment")]
    Alignment {
        /// Start of the slice.
        offset_bytes: u64,
        /// `min_storage_buffer_offset_alignment` of the device.
        alignment_bytes: u64,
    },
    /// A buffer without a usage that the kernels need.
    #[error("the buffer's usage is {found}, expected it to contain {expected}")]
    Usage {
        /// Usage of the buffer.
        found: String,
        /// Usage needed.
        expected: String,
    },
    /// A GPU buffer given to the host device.
    #[error("{device} cannot wrap a wgpu buffer; use Device::upload for host memory")]
    NotAGpu {
        /// Name of the device.
        device: String,
    },
    /// Tensors or parameters that are not those of the forward call that is differentiated.
    #[error("{argument} is not what the saved forward call used: {reason}; run forward again")]
    NotSaved {
        /// Name of the argument.
        argument: String,
        /// What differs.
        reason: &'static str,
    },
    /// Layers of different configuration where one is needed.
    #[error("{argument}[{index}] is configured as {found}, expected {expected}, as the first")]
    Config {
        /// Name of the argument.
        argument: &'static str,
        /// Position in the list.
        index: usize,
        /// The configuration found.
        found: String,
        /// The first layer's configuration.
        expected: String,
    },
    /// A parameter for a layer that has none of that name.
    #[error("{name} was given, but the layer was configured without it, or with it frozen")]
    NoSuchParameter {
        /// `weight`, `bias`, or `running statistics`.
        name: &'static str,
    },
}

/// A tensor that a device cannot bind or dispatch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// More bytes than one storage binding of the device.
    #[error("{what} of dims {dims:?} is {found_bytes} bytes, the device binds at most {allowed_bytes} bytes at a time")]
    Binding {
        /// Which buffer.
        what: &'static str,
        /// The tensor's dimensions.
        dims: Vec<usize>,
        /// Bytes needed.
        found_bytes: u64,
        /// `max_storage_buffer_binding_size` of the device.
        allowed_bytes: u64,
    },
    /// More bytes than one buffer of the device.
    #[error("a tensor of dims {dims:?} is {found_bytes} bytes, the device's largest buffer is {allowed_bytes} bytes")]
    Buffer {
        /// The tensor's dimensions.
        dims: Vec<usize>,
        /// Bytes needed.
        found_bytes: u64,
        /// `max_buffer_size` of the device.
        allowed_bytes: u64,
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
    /// A device below the portable baseline.
    #[error("{device}: {limit} is {found}, expected at least {expected}")]
    Device {
        /// Name of the device.
        device: String,
        /// Name of the limit.
        limit: &'static str,
        /// What the device has.
        found: u64,
        /// What the kernels need.
        expected: u64,
    },
}

/// A failure of a GPU or its driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// No adapter answers the request.
    #[error("no adapter was found{}; install a Vulkan, Metal or DX12 driver, or use Device::host()", if wanted.is_empty() { String::new() } else { format!(" for {wanted}") })]
    NoAdapter {
        /// What was asked for; empty for any.
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
        /// What was being done.
        phase: &'static str,
        /// wgpu's words.
        message: String,
    },
    /// The device ran out of memory.
    #[error("{device}: out of memory in {phase}: {message}")]
    OutOfMemory {
        /// Name of the device.
        device: String,
        /// What was being done.
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
    /// A result did not arrive in time.
    #[error("{device}: no result within {deadline:?}; raise Device::with_deadline if the work is that long")]
    Timeout {
        /// Name of the device.
        device: String,
        /// The deadline that passed.
        deadline: Duration,
    },
}

/// A batch from which no statistics can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// One value per channel in the whole group.
    #[error("expected more than 1 value per channel in the whole group when training, found 1")]
    OneValue,
}

/// A state that is not one of the layer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A tensor that the layer needs is not there.
    #[error("{name} is missing; found: {}", if found.is_empty() { "nothing".to_owned() } else { found.join(", ") })]
    Missing {
        /// Name of the tensor.
        name: String,
        /// The names that are there.
        found: Vec<String>,
    },
    /// A tensor that the layer has no place for.
    #[error("{name} is there, but the layer was configured without it")]
    Unexpected {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor of another shape.
    #[error("{name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape expected.
        expected: Vec<usize>,
    },
    /// A tensor that is not a vector.
    #[error("{name} has shape {found:?}, expected one dimension: [num_features]")]
    Rank {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor of another type.
    #[error("{name} is of type {found}, expected {expected}")]
    Dtype {
        /// Name of the tensor.
        name: String,
        /// Its type.
        found: String,
        /// The type expected.
        expected: String,
    },
    /// A value that is NaN or infinite.
    #[error("{name}[{channel}] is {found}, expected a finite number; LoadOptions::allow_non_finite accepts it")]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// The first such channel.
        channel: usize,
        /// The value.
        found: f32,
    },
    /// A variance below 0.
    #[error("{name}[{channel}] is {found}, expected a variance of at least 0")]
    NegativeVariance {
        /// Name of the tensor.
        name: String,
        /// The first such channel.
        channel: usize,
        /// The value.
        found: f32,
    },
    /// A counter below 0.
    #[error("{name} is {found}, expected at least 0")]
    NegativeCount {
        /// Name of the tensor.
        name: String,
        /// The value.
        found: i64,
    },
    /// Bytes that are not a safetensors file.
    #[error("not a safetensors file: {message}")]
    Format {
        /// What the format's library says.
        message: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {message}")]
    File {
        /// Path of the file.
        path: String,
        /// What the system says.
        message: String,
    },
}

/// Process groups that cannot be made. Every rank finds the same error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A rank that does not exist.
    #[error("rank {rank} is in a list, but the group has ranks 0 to {}", world_size - 1)]
    OutOfRange {
        /// The rank.
        rank: usize,
        /// Ranks of the group.
        world_size: usize,
    },
    /// A rank in two lists, or twice in one.
    #[error("rank {rank} is listed twice; process groups are disjoint")]
    Twice {
        /// The rank.
        rank: usize,
    },
    /// A rank that is not among those of its own group.
    #[error("rank {rank} asks for the group {list:?}, which it is not a member of")]
    NotAMember {
        /// The rank.
        rank: usize,
        /// The group it asked for.
        list: Vec<usize>,
    },
    /// Ranks that ask for different things.
    #[error("rank {rank} asks for {found}, expected {expected}, as rank 0")]
    Disagree {
        /// The first rank that differs.
        rank: usize,
        /// What it asks for.
        found: String,
        /// What is asked for by the others.
        expected: String,
    },
}

/// An exchange with other ranks that failed, on every rank that took part. Ranks are those of the outermost group; `at`
/// names layer, phase and exchange of the rank that reports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Ranks did not come in time.
    #[error("{at}: rank(s) {ranks:?} did not come within {deadline:?}")]
    Late {
        /// Where.
        at: String,
        /// Who is missing.
        ranks: Vec<usize>,
        /// The deadline that passed.
        deadline: Duration,
    },
    /// A rank is gone.
    #[error("{at}: rank {rank} {}", if *panicked { "panicked" } else { "has left the group" })]
    Left {
        /// Where.
        at: String,
        /// Who.
        rank: usize,
        /// Whether it was unwinding from a panic.
        panicked: bool,
    },
    /// A rank has failed and said so.
    #[error("{at}: rank {rank} failed at {reason}")]
    Aborted {
        /// Where.
        at: String,
        /// Who.
        rank: usize,
        /// Where it was, and its error.
        reason: String,
    },
    /// Ranks are not at the same place, or not set up alike.
    #[error("{at}: {what} of rank {rank} is {found}, expected {expected}, as on most ranks")]
    Mismatch {
        /// Where.
        at: String,
        /// The first rank that differs.
        rank: usize,
        /// What differs.
        what: &'static str,
        /// What most ranks have.
        expected: String,
        /// What this rank has.
        found: String,
    },
    /// A rank sent what is not a message of this protocol.
    #[error("{at}: the message of rank {rank} cannot be used: {message}")]
    Frame {
        /// Where.
        at: String,
        /// Who.
        rank: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The transport failed.
    #[error("{at}: the transport failed: {message}")]
    Transport {
        /// Where.
        at: String,
        /// What it says.
        message: String,
    },
    /// An exchange of the group has failed before; make a new group to go on.
    #[error("{at}: the process group refuses work since an exchange failed: {cause}")]
    Poisoned {
        /// What was asked for.
        at: String,
        /// The first failure.
        cause: String,
    },
}
