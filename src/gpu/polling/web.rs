//! In a browser the event loop polls devices: a future waits for the callback, and for a timer of
//! the page where its deadline may pass. It never wakes itself, which would keep the event loop
//! from both.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;

use super::Reply;
use crate::error::GpuError;
use crate::timer::Timer;

/// Ends when the device has answered, or with an error when the deadline has passed.
pub(in crate::gpu) struct Waiting {
    name: String,
    receiver: oneshot::Receiver<Result<(), GpuError>>,
    deadline: Duration,
    timer: Timer,
}

impl Future for Waiting {
    type Output = Result<(), GpuError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let device = self.name.clone();
        if let Poll::Ready(answer) = self.receiver.poll_unpin(context) {
            let message = "its callback was dropped".to_owned();
            return Poll::Ready(answer.unwrap_or(Err(GpuError::Readback { device, message })));
        }
        let deadline = self.deadline;
        self.timer.poll_unpin(context).map(|()| Err(GpuError::Timeout { device, deadline }))
    }
}

/// Makes the futures that wait for one device.
#[derive(Debug)]
pub(in crate::gpu) struct Poller {
    name: String,
}

impl Poller {
    pub fn new(_device: wgpu::Device, name: String) -> Self {
        Self { name }
    }

    /// A future that ends when the callback registered by `register` answers, or when the deadline
    /// passes.
    pub fn watch(
        self: &Arc<Self>,
        _submission: wgpu::SubmissionIndex,
        deadline: Duration,
        register: impl FnOnce(Reply),
    ) -> Waiting {
        let (reply, receiver) = super::reply();
        register(reply);
        Waiting { name: self.name.clone(), receiver, deadline, timer: Timer::new(deadline) }
    }
}
