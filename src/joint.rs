//! Several layers that do not depend on each other in one call: per device one submission before
//! the exchange and one after it, and one message to the other ranks for all. Each layer gets the
//! bits that it would get by itself.
//!
//! The layers are of one process group, and but for [`synchronize`] on the same devices. All ranks
//! make the same calls, in the same order. An error is [`Error::Joint`] with the number of the
//! layer that it is of; then no layer's running statistics have changed, unless a device failed
//! after the exchange, and targets may be partly written. The peers of every layer learn of it,
//! also where the layers are of several process groups, which is refused.
//!
//! ```
//! use syncbn::{BatchNormConfig, Device, SyncBatchNorm, joint};
//!
//! # pollster::block_on(async {
//! let host = Device::host();
//! let layers = [1, 2].map(|channels| SyncBatchNorm::new(BatchNormConfig::torch(channels), [host.clone()]));
//! let [a, b] = layers;
//! let (a, b) = (a?, b?);
//! let (x, z) = (host.upload(&[2, 1], &[0.0f32, 2.0])?, host.upload(&[2, 2], &[1.0f32, 2.0, 3.0, 6.0])?);
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
/// As there; [`ArgumentError::NotJoint`](crate::error::ArgumentError::NotJoint) for a layer
/// on other devices or of another process group than the first.
///
/// # Cancel safety
/// As there.
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

/// [`SyncBatchNorm::backward`] of several layers, each with what its forward call has saved.
///
/// # Errors
/// As there, and as [`forward_train`].
///
/// # Cancel safety
/// As there.
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

/// [`SyncBatchNorm::synchronize`] of several layers, of statistics or of gradient sums: their
/// devices need not be the same.
///
/// # Errors
/// As there, and as [`forward_train`].
pub fn synchronize<'a, T: Mergeable>(
    calls: impl IntoIterator<Item = (&'a SyncBatchNorm, Local<T>)>,
) -> Synchronization<Vec<Global<T>>> {
    synchronize_layers(calls)
}
