//! Several layers in one call, with one message to the other ranks.
//!
//! The layers must not depend on each other. A joint call makes one submission per device before
//! the exchange and one after it, and sends one message for all layers. Each layer gets the same
//! bits as by itself.
//!
//! The layers belong to one process group. Except for [`synchronize`], they are on the same
//! devices. All ranks make the same calls, in the same order.
//!
//! An error is [`Error::Joint`] with the number of its layer. No layer's running statistics have
//! changed then, unless a device failed after the exchange. Targets may be partly written. The
//! peers of every layer are notified of the error. This includes the refusal of layers in several
//! process groups.
//!
//! ```
//! use syncbn::{BatchNormConfig, Device, SyncBatchNorm, joint};
//!
//! # pollster::block_on(async {
//! let host = Device::host();
//! let layer = |channels| SyncBatchNorm::new(BatchNormConfig::torch(channels), [host.clone()]);
//! let a = layer(1)?;
//! let b = layer(2)?;
//! let x = host.upload(&[2, 1], &[0.0f32, 2.0])?;
//! let z = host.upload(&[2, 2], &[1.0f32, 2.0, 3.0, 6.0])?;
//! let forward = joint::forward_train([(&a, &x), (&b, &z)]).await?;
//! assert_eq!(forward[1].saved.statistics().unwrap().channels()[1].mean, 4.0);
//! # Ok::<(), syncbn::Error>(())
//! # }).unwrap();
//! ```

use crate::collective::Synchronization;
use crate::config::Mode;
use crate::error::Error;
use crate::layer::{
    BackwardCall, Failure, ForwardCall, SyncBatchNorm, backward_of, forward_of, synchronize_layers,
};
use crate::request::{Backward, Forward, Gradients, Normalized};
use crate::saved::Saved;
use crate::stats::{Global, Local, Mergeable};
use crate::tensor::Output;

/// [`SyncBatchNorm::forward_train`] of several layers.
///
/// # Errors
/// As [`SyncBatchNorm::forward_train`];
/// [`ArgumentError::NotJoint`](crate::error::ArgumentError::NotJoint) for a layer on other devices
/// or of another process group than the first.
///
/// # Cancel safety
/// As [`SyncBatchNorm::forward_train`]: a dropped call fails the process group.
pub fn forward_train<'a, O: Output, F: Into<Forward<'a, O>>>(
    calls: impl IntoIterator<Item = (&'a SyncBatchNorm, F)>,
) -> impl Future<Output = Result<Vec<Normalized<O>>, Error>> {
    forward(calls, Mode::Train)
}

/// [`SyncBatchNorm::forward_eval`] of several layers.
///
/// # Errors
/// As [`forward_train`].
///
/// # Cancel safety
/// As [`SyncBatchNorm::forward_eval`].
pub fn forward_eval<'a, O: Output, F: Into<Forward<'a, O>>>(
    calls: impl IntoIterator<Item = (&'a SyncBatchNorm, F)>,
) -> impl Future<Output = Result<Vec<Normalized<O>>, Error>> {
    forward(calls, Mode::Eval)
}

fn forward<'a, O: Output, F: Into<Forward<'a, O>>>(
    calls: impl IntoIterator<Item = (&'a SyncBatchNorm, F)>,
    mode: Mode,
) -> impl Future<Output = Result<Vec<Normalized<O>>, Error>> {
    let calls = calls
        .into_iter()
        .map(|(layer, request)| ForwardCall { layer, parts: request.into().parts });
    let calls: Vec<_> = calls.collect();
    async move { forward_of(calls, mode).await.map_err(Failure::joint) }
}

/// [`SyncBatchNorm::backward`] of several layers, each with the context that its forward call
/// saved.
///
/// # Errors
/// As [`SyncBatchNorm::backward`] and [`forward_train`].
///
/// # Cancel safety
/// As [`SyncBatchNorm::forward_train`]: a dropped call fails the process group.
pub fn backward<'a, O: Output>(
    calls: impl IntoIterator<Item = (&'a SyncBatchNorm, &'a Saved, Backward<'a, O>)>,
) -> impl Future<Output = Result<Vec<Gradients<O>>, Error>> {
    let call = |(layer, saved, request): (_, _, Backward<'a, O>)| BackwardCall {
        layer,
        saved,
        parts: request.parts,
    };
    let calls: Vec<_> = calls.into_iter().map(call).collect();
    async move { backward_of(calls).await.map_err(Failure::joint) }
}

/// [`SyncBatchNorm::synchronize`] of several layers, of statistics or of gradient sums. Their
/// devices need not be the same.
///
/// # Errors
/// As [`SyncBatchNorm::synchronize`] and [`forward_train`].
///
/// # Cancel safety
/// As [`Synchronization`].
pub fn synchronize<'a, T: Mergeable>(
    calls: impl IntoIterator<Item = (&'a SyncBatchNorm, Local<T>)>,
) -> Synchronization<Vec<Global<T>>> {
    synchronize_layers(calls)
}
