//! Futures that wait for a device, and the polling of the device. Callbacks arrive under any
//! executor.

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(target_arch = "wasm32")]
mod web;

use std::sync::{Arc, Mutex};

use futures::channel::oneshot;

use super::trace;
use crate::error::GpuError;

#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::{Poller, Waiting};
#[cfg(target_arch = "wasm32")]
pub(super) use web::{Poller, Waiting};

/// Sender of the answer to a waiting future.
type Answer = oneshot::Sender<Result<(), GpuError>>;

/// Answers one waiting future. The callback of wgpu and the polling thread share it, and the first
/// one answers.
#[derive(Clone, Debug)]
pub(in crate::gpu) struct Reply {
    sender: Arc<Mutex<Option<Answer>>>,
}

impl Reply {
    #[cfg(not(target_arch = "wasm32"))]
    fn is_sent(&self) -> bool {
        trace::lock(&self.sender).is_none()
    }

    pub fn send(&self, result: Result<(), GpuError>) {
        if let Some(sender) = trace::lock(&self.sender).take() {
            // If the caller dropped the future, the receiver is gone and no answer is needed.
            let _ = sender.send(result);
        }
    }
}

/// A reply and its receiver.
fn reply() -> (Reply, oneshot::Receiver<Result<(), GpuError>>) {
    let (sender, receiver) = oneshot::channel();
    (Reply { sender: Arc::new(Mutex::new(Some(sender))) }, receiver)
}
