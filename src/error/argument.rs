//! Arguments of a call that do not fit.

use super::{LengthsError, ShapeError};
use crate::dtype::DType;
use crate::shape::Layout;

/// An argument of a call that does not fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentError {
    /// A list with another length than the call or the layer has ranks.
    #[error("{argument} has {found} {}, expected {expected}: one per rank", items(argument))]
    RankCount {
        /// Name of the argument.
        argument: &'static str,
        /// Tensors, or statistics of ranks, found.
        found: usize,
        /// Ranks of the call or the layer.
        expected: usize,
    },
    /// An argument that this form of the call does not take.
    #[error("{argument} is not wanted here: {reason}")]
    NotWanted {
        /// Name of the argument.
        argument: &'static str,
        /// The reason.
        reason: &'static str,
    },
    /// A layer that cannot share an exchange with the first of a joint call.
    #[error("the layer cannot share an exchange with that of request 0: {reason}")]
    NotJoint {
        /// The difference.
        reason: &'static str,
    },
    /// A tensor whose dimensions no activation can have.
    #[error("{}: {shape}", indexed(argument, *rank))]
    Shape {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list; `None` if there is one rank, or the argument is no list
        /// of one tensor per rank.
        rank: Option<usize>,
        /// The error of the dimensions.
        shape: ShapeError,
    },
    /// A tensor with another number of channels than the layer.
    #[error(
        "{} has {found} channels (dims {dims:?}), expected num_features = {expected}{}",
        indexed(argument, *rank),
        layout_hint(dims, *found, *expected)
    )]
    Channels {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list; `None` if there is one rank, or the argument is no list
        /// of one tensor per rank.
        rank: Option<usize>,
        /// The tensor's dimensions.
        dims: Vec<usize>,
        /// Channels found.
        found: usize,
        /// The layer's `num_features`.
        expected: usize,
    },
    /// A tensor with another shape than its counterpart.
    #[error("{} has dims {found:?}, expected {expected:?}", indexed(argument, *rank))]
    Dims {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list; `None` if there is one rank, or the argument is no list
        /// of one tensor per rank.
        rank: Option<usize>,
        /// The dimensions found.
        found: Vec<usize>,
        /// The dimensions of its counterpart.
        expected: Vec<usize>,
    },
    /// Values or a tensor of a storage type that does not fit the others.
    #[error("{argument} is stored as {found}, expected {expected}")]
    DType {
        /// Name of the argument, with the position if there are several ranks: `x[1]`.
        argument: String,
        /// The storage type found.
        found: DType,
        /// The storage types that fit.
        expected: String,
    },
    /// Lengths of padded samples that do not fit.
    #[error(transparent)]
    Lengths(#[from] LengthsError),
    /// A tensor of another layout than its counterpart.
    #[error(
        "{} is in layout {found:?}, expected {expected:?}, as x",
        indexed(argument, *rank)
    )]
    Layout {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list; `None` if there is one rank, or the argument is no list
        /// of one tensor per rank.
        rank: Option<usize>,
        /// The layout found.
        found: Layout,
        /// The layout of its counterpart.
        expected: Layout,
    },
    /// A tensor on another device than its rank.
    #[error(
        "{} lies on {found}, expected {expected}, the layer's device for it",
        indexed(argument, *rank)
    )]
    WrongDevice {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list; `None` if there is one rank, or the argument is no list
        /// of one tensor per rank.
        rank: Option<usize>,
        /// The device of the tensor.
        found: String,
        /// The device of the rank.
        expected: String,
    },
    /// An output that shares bytes with an input or with another output.
    #[error(
        "{} overlaps {} in one buffer; give it a range of its own{}",
        indexed(argument, *rank),
        indexed(other, *other_rank),
        in_place_hint(argument, other, rank == other_rank)
    )]
    Overlap {
        /// Name of the output.
        argument: &'static str,
        /// Rank of the output; `None` if there is one rank.
        rank: Option<usize>,
        /// Name of the other tensor.
        other: &'static str,
        /// Rank of the other tensor; `None` if there is one rank.
        other_rank: Option<usize>,
    },
    /// Statistics that no batch has.
    #[error("channel {channel} of {} cannot be: {reason}", indexed(argument, *rank))]
    Statistics {
        /// Name of the argument.
        argument: &'static str,
        /// Rank, the position in the list; `None` if there is one rank, or for those of all ranks.
        rank: Option<usize>,
        /// Number of the channel.
        channel: usize,
        /// The error of its statistics.
        reason: String,
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
    /// A buffer slice with a start or an end that is not allowed.
    #[error(
        "dims need {size_bytes} bytes from offset_bytes = {offset_bytes} on, the buffer has \
        {buffer_bytes} bytes"
    )]
    SliceSize {
        /// Start of the slice.
        offset_bytes: u64,
        /// Length of the slice.
        size_bytes: u64,
        /// Size of the buffer.
        buffer_bytes: u64,
    },
    /// A buffer slice that starts at an offset the device cannot bind.
    #[error(
        "offset_bytes = {offset_bytes} is not a multiple of {alignment_bytes}, the device's \
        storage buffer alignment"
    )]
    Alignment {
        /// Start of the slice.
        offset_bytes: u64,
        /// `min_storage_buffer_offset_alignment` of the device.
        alignment_bytes: u64,
    },
    /// A buffer without a usage that the kernels need.
    #[error("{argument} has usage {found}, expected it to contain {expected}")]
    Usage {
        /// The buffer, or the tensor that lies in it, with the position if there are several ranks.
        argument: String,
        /// Usage of the buffer.
        found: String,
        /// Usage needed.
        expected: String,
    },
    /// A buffer of a parameter without the usage by which the parameter is read: for a checkpoint,
    /// or to be compared with that of other ranks.
    #[error(
        "{} lies in a buffer of usage {found}, expected it to contain {expected}: the state is \
        read from it",
        indexed(name, *rank)
    )]
    ParameterUsage {
        /// `weight` or `bias`.
        name: &'static str,
        /// Rank, the position in the list; `None` if there is one rank, or the argument is no list
        /// of one tensor per rank.
        rank: Option<usize>,
        /// Usage of the buffer.
        found: String,
        /// Usage needed.
        expected: String,
    },
    /// The host where a GPU is needed.
    #[error("{call} needs a GPU, found {device}; {instead}")]
    NotAGpu {
        /// The call that needs one.
        call: &'static str,
        /// Name of the device.
        device: String,
        /// The call to use on the host.
        instead: &'static str,
    },
    /// A layer with ranks in other processes or threads, although one without peers is needed.
    #[error(
        "{argument}[{index}] has ranks in other processes or threads, which it would lose; give \
        layers without a process group, such as those of into_local"
    )]
    HasPeers {
        /// Name of the argument.
        argument: &'static str,
        /// Position in the list.
        index: usize,
    },
    /// Tensors or parameters that are not those of the forward call that is differentiated.
    #[error("{}: {reason}", not_saved(argument))]
    NotSaved {
        /// Name of the argument, with the position if there are several ranks: `x[1]`.
        argument: String,
        /// The difference.
        reason: &'static str,
    },
    /// Layers with different configurations, although one is needed.
    #[error("{name} of {argument}[{index}] is {found}, expected {expected}, as of the first")]
    Config {
        /// Name of the argument.
        argument: &'static str,
        /// Position in the list.
        index: usize,
        /// The first setting that differs, as in `docs/PROTOCOL.md`: `eps`, `weight_init[3]`.
        name: String,
        /// Its value.
        found: String,
        /// The first layer's value.
        expected: String,
    },
    /// A layer that adds a residual, and none was given.
    #[error("the layer adds a residual, and needs one per rank: give `.residual(…)`")]
    NoResidual,
    /// A residual, or a target for its gradient, for a layer that adds none.
    #[error(
        "{argument} was given, but the layer adds no residual; configure `.with_residual(true)`"
    )]
    ResidualNotAdded {
        /// Name of the argument.
        argument: &'static str,
    },
    /// A parameter, or a target for its gradient, for a layer that has none of that name.
    #[error(
        "{argument} was given, but the layer was configured without it; see \
        BatchNormConfig::{setting}"
    )]
    NoSuchParameter {
        /// Name of the argument.
        argument: &'static str,
        /// The method of the configuration that decides it.
        setting: &'static str,
    },
    /// A target for the gradient of a parameter that gets none.
    #[error(
        "{argument} was given, but weight and bias are frozen and get no gradient; see \
        BatchNormConfig::with_freeze_affine"
    )]
    Frozen {
        /// Name of the argument.
        argument: &'static str,
    },
}

impl ArgumentError {
    /// A request that has no tensor to return. No form of a request is like that.
    pub(crate) fn no_tensor() -> Self {
        Self::RankCount { argument: "x", found: 0, expected: 1 }
    }
}

/// What a list has one of per rank.
fn items(argument: &str) -> &'static str {
    if argument == "local" { "set(s) of statistics" } else { "tensor(s)" }
}

/// What is wrong with an argument of a call that differentiates a saved one.
fn not_saved(argument: &str) -> String {
    match argument {
        "saved" => "saved does not fit this call".to_owned(),
        _ => format!("{argument} is not what the saved forward call used"),
    }
}

/// The way to write over an input, for an output that overlaps that of its rank.
fn in_place_hint(argument: &str, other: &str, is_of_rank: bool) -> &'static str {
    match (argument, other) {
        ("output", "x") if is_of_rank => " (to overwrite x itself, call Forward::in_place)",
        ("input_gradient", "grad_output") if is_of_rank => {
            " (to overwrite grad_output itself, call Backward::in_place)"
        }
        _ => "",
    }
}

/// The position of a tensor in an argument of so many: `None` if it is the only one.
pub(crate) fn position(rank: usize, tensors: usize) -> Option<usize> {
    (tensors > 1).then_some(rank)
}

/// The name of a tensor of an argument.
pub(crate) fn indexed(argument: &str, rank: Option<usize>) -> String {
    rank.map_or_else(|| argument.to_owned(), |rank| format!("{argument}[{rank}]"))
}

/// A hint, if the other layout would give the expected channels.
fn layout_hint(dims: &[usize], found: usize, expected: usize) -> &'static str {
    match dims {
        [_, first, .., last] if (*first, *last) == (found, expected) => {
            "; if the channels are the last dimension, say so: with_layout(Layout::ChannelsLast)"
        }
        [_, first, .., last] if (*first, *last) == (expected, found) => {
            "; if the channels are the second dimension, say so: with_layout(Layout::ChannelsFirst)"
        }
        _ => "",
    }
}
