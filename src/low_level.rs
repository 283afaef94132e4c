//! Internals for this crate's own tests, examples and tools. **Unstable**: any release may change
//! or remove them.

#[cfg(feature = "gpu")]
mod rewriting;

#[cfg(feature = "gpu")]
pub use rewriting::with_rewritten_kernels;

use crate::collective::{Merged, ReduceOp, pack, unpack};
use crate::config::BatchNormConfig;
use crate::error::StateError;
use crate::exchange::merge_parts;
use crate::state::StateDict;
use crate::stats::{GradientSums, Moments};

pub use crate::checksum::Manifest;
pub use crate::collective::frame::{
    Frame, FrameError, Header, NodePayload, Payload, Phase, Values,
};
pub use crate::epilogue::Epilogue;
pub use crate::shape::{Shape, Strides};
pub use crate::stats::normalization::{Centering, GradCentering, Normalization};

macro_rules! modules {
    ($($(#[$doc:meta])* $name:ident = $path:path;)*) => {$(
        $(#[$doc])*
        pub mod $name {
            pub use $path::*;
        }
    )*};
}

modules! {
    /// From shapes to kernels, workgroups and buffers.
    plan = crate::plan;
    /// The probe of a driver at opening.
    probe = crate::probe;
    /// WGSL sources, parameters and bindings.
    shaders = crate::shaders;
    /// The canonical tree over ranks.
    tree = crate::stats::tree;
}

/// How a layer of these settings ends.
pub fn epilogue_of(config: &BatchNormConfig) -> Epilogue {
    config.epilogue()
}

/// The settings of a layer as ranks compare them.
pub fn settings_manifest(config: &BatchNormConfig) -> Manifest {
    config.manifest()
}

/// The state of a layer as ranks compare it.
pub fn state_manifest(state: &StateDict) -> Manifest {
    state.manifest()
}

/// A message of several frames, decoded and encoded again.
///
/// # Errors
/// [`FrameError`] for bytes that are no such list.
pub fn recode_list(message: &[u8]) -> Result<Vec<u8>, FrameError> {
    let frames = unpack("frame", message)?.into_iter().map(Frame::decode);
    let frames = frames.collect::<Result<Vec<_>, _>>()?;
    Ok(pack(frames.into_iter()))
}

/// A message that an all-reduce has merged, decoded and encoded again.
///
/// # Errors
/// [`FrameError`] for bytes that are no such message.
pub fn recode_merged(message: &[u8]) -> Result<Vec<u8>, FrameError> {
    Merged::decode(message).map(Merged::encode)
}

/// A rank's part of an all-reduce: its message of frames as a merged message of one rank.
///
/// # Errors
/// [`FrameError`] for bytes that are no message of frames.
pub fn merged_of_one(message: &[u8]) -> Result<Vec<u8>, FrameError> {
    let frames = unpack("frame", message)?.into_iter().map(Frame::decode);
    Ok(Merged::of(frames.collect::<Result<Vec<_>, _>>()?.into_iter()).encode())
}

/// The reduce operation of messages of statistics.
pub const REDUCE_STATISTICS: ReduceOp = merge_parts::<Moments>;

/// The reduce operation of messages of gradient sums.
pub const REDUCE_GRADIENT_SUMS: ReduceOp = merge_parts::<GradientSums>;

/// A state as the bytes of a broadcast.
pub fn state_to_message(state: &StateDict) -> Vec<u8> {
    state.to_message()
}

/// The state of a broadcast.
///
/// # Errors
/// [`StateError::Message`] for other bytes.
pub fn state_from_message(message: &[u8]) -> Result<StateDict, StateError> {
    StateDict::from_message(message)
}
