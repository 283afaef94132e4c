//! Bringing bytes back: staging buffers, and the thread that polls so that callbacks arrive under any executor.
//!
//! wgpu runs callbacks only while somebody polls the device. Each device has one thread for that, asleep unless a result
//! is awaited; an application that polls by itself may go on doing so. In a browser the event loop does it.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use super::buffer::{BufferSlice, trace_allocation};
use crate::error::GpuError;

/// Where the answer to a waiting future goes.
type Answer = oneshot::Sender<Result<(), GpuError>>;

/// Answers one waiting future, whoever comes first: the callback of wgpu or the polling thread.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    sender: Arc<Mutex<Option<Answer>>>,
}

impl Reply {
    fn is_sent(&self) -> bool {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    pub fn send(&self, result: Result<(), GpuError>) {
        if let Some(sender) = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The receiver is gone where the caller dropped the future: nobody is left to tell.
            let _ = sender.send(result);
        }
    }
}

/// Ends when the device has answered.
pub(super) type Waiting = BoxFuture<'static, Result<(), GpuError>>;

struct Job {
    submission: wgpu::SubmissionIndex,
    deadline: Duration,
    /// When the deadline passes, so that a job does not gain by waiting behind another.
    ends: Option<Instant>,
    reply: Reply,
}

/// The polling thread of one device.
#[derive(Debug)]
pub(super) struct Poller {
    device: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Below this, a deadline is watched by polling again and again instead of one wait.
///
/// wgpu-core 30.0.1 panics when a wait expires just as the submission ends and another thread submits (an assertion in
/// `Device::maintain`). A wait that expires after a second or more is for a device that hangs, where nothing just ends.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Pause between two polls, about what a sleep can be.
const POLL_PAUSE: Duration = Duration::from_micros(50);

/// Drives the device until the submission is done or its deadline passes.
fn wait(
    device: &wgpu::Device,
    submission: wgpu::SubmissionIndex,
    ends: Option<Instant>,
    reply: &Reply,
) -> Result<(), wgpu::PollError> {
    let left = || ends.map(|ends| ends.saturating_duration_since(Instant::now()));
    let timeout = left();
    if timeout.is_none_or(|timeout| timeout >= SHORTEST_WAIT) {
        return device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout }).map(drop);
    }
    loop {
        device.poll(wgpu::PollType::Poll)?;
        if reply.is_sent() {
            return Ok(());
        }
        if left().is_some_and(|left| left.is_zero()) {
            return Err(wgpu::PollError::Timeout);
        }
        std::thread::sleep(POLL_PAUSE);
    }
}

impl Poller {
    pub fn new(device: wgpu::Device, name: String) -> Self {
        let (jobs, received) = mpsc::channel::<Job>();
        let label = name.clone();
        let thread = std::thread::Builder::new().name("syncbn-poll".into()).spawn(move || {
            for Job { submission, deadline, ends, reply } in received {
                match wait(&device, submission, ends, &reply) {
                    Ok(()) => {}
                    Err(wgpu::PollError::Timeout) => {
                        reply.send(Err(GpuError::Timeout { device: label.clone(), deadline }))
                    }
                    Err(error) => {
                        reply.send(Err(GpuError::Readback { device: label.clone(), message: error.to_string() }))
                    }
                }
            }
        });
        Self { device: name, jobs: Some(jobs), thread: thread.ok() }
    }

    /// A future that ends when the callback registered by `register` answers, or when the submission's deadline passes.
    pub fn watch(
        &self,
        submission: wgpu::SubmissionIndex,
        deadline: Duration,
        register: impl FnOnce(Reply),
    ) -> Waiting {
        let (sender, receiver) = oneshot::channel();
        let reply = Reply { sender: Arc::new(Mutex::new(Some(sender))) };
        register(reply.clone());
        let job = Job { submission, deadline, ends: Instant::now().checked_add(deadline), reply: reply.clone() };
        let device = self.device.clone();
        if self.jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
            reply.send(Err(GpuError::Readback {
                device: device.clone(),
                message: "its polling thread has ended".into(),
            }));
        }
        async move {
            receiver
                .await
                .unwrap_or_else(|_| Err(GpuError::Readback { device, message: "its callback was dropped".into() }))
        }
        .boxed()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let Some(thread) = self.thread.take() else { return };
        // Joined, so that no thread is inside the driver while the process unloads it; not by itself, which would wait forever.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// Records a copy of `source` to a new buffer that the host can map.
pub(super) fn copy_out(
    device: &wgpu::Device,
    encoder: &mut wgpu::CommandEncoder,
    source: &BufferSlice,
) -> wgpu::Buffer {
    trace_allocation(source.size_bytes);
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("syncbn readback"),
        size: source.size_bytes,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    encoder.copy_buffer_to_buffer(&source.buffer, source.offset_bytes, &staging, 0, source.size_bytes);
    staging
}

/// A future that ends when `staging` is mapped.
pub(super) fn map(
    poller: &Poller,
    staging: &wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
    deadline: Duration,
) -> Waiting {
    let device = poller.device.clone();
    poller.watch(submission, deadline, |reply| {
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            reply.send(result.map_err(|error| GpuError::Readback { device, message: error.to_string() }));
        });
    })
}

/// The bytes of a mapped buffer.
pub(super) fn take(staging: &wgpu::Buffer, device: &str) -> Result<Vec<u8>, GpuError> {
    let view = staging
        .get_mapped_range(..)
        .map_err(|error| GpuError::Readback { device: device.to_owned(), message: error.to_string() })?;
    Ok(view.to_vec())
}
