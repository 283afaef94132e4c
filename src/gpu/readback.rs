//! Bringing bytes back: staging buffers, and who polls so that callbacks arrive under any executor.
//!
//! wgpu runs callbacks only while somebody polls the device. A future that waits does it itself
//! each time it is polled, for a while: most results are there before a thread could be woken to
//! wait for them. What takes longer goes to the polling thread of the device, asleep otherwise. An
//! application that polls by itself may go on doing so. In a browser the event loop does it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::channel::oneshot;

use super::buffer::BufferSlice;
use super::pool::Lease;
use super::{Gpu, trace};
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
        if let Some(sender) = trace::lock(&self.sender).take() {
            // The receiver is gone where the caller dropped the future: nobody is left to tell.
            let _ = sender.send(result);
        }
    }
}

/// How long a future polls the device before the polling thread waits for it: what a small tensor
/// takes, kernels and all. Beside more, waking two threads is little, and a processor that a
/// software driver computes on would be missed.
const OWN_POLLING: Duration = Duration::from_micros(200);

/// Ends when the device has answered, or with an error when the deadline has passed.
pub(super) struct Waiting {
    device: wgpu::Device,
    name: String,
    receiver: oneshot::Receiver<Result<(), GpuError>>,
    /// What the polling thread needs, until it has it.
    job: Option<Job>,
    /// Not kept alive: where the device is dropped before its results are there, the future polls
    /// on by itself.
    poller: Weak<Poller>,
    /// When the polling thread takes over.
    hand_over_at: Option<Instant>,
}

impl Waiting {
    fn failed(&self, message: String) -> GpuError {
        GpuError::Readback { device: self.name.clone(), message }
    }

    /// The answer, where it has arrived.
    fn answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), GpuError>> {
        let answer = std::task::ready!(self.receiver.poll_unpin(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(self.failed("its callback was dropped".into()))))
    }

    /// Lets the polling thread wait; `false` where there is none any more.
    fn hand_over(&mut self) -> bool {
        let Some(poller) = self.poller.upgrade() else { return false };
        let Some(jobs) = &poller.jobs else { return false };
        match self.job.take().map(|job| jobs.send(job)) {
            Some(Err(mpsc::SendError(job))) => {
                self.job = Some(job);
                false
            }
            _ => true,
        }
    }
}

impl Future for Waiting {
    type Output = Result<(), GpuError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.answer(context);
        let Some(job) = &self.job else { return answer };
        if answer.is_ready() {
            return answer;
        }
        let (ends, deadline) = (job.ends, job.deadline);
        if let Err(error) = self.device.poll(wgpu::PollType::Poll) {
            return Poll::Ready(Err(self.failed(error.to_string())));
        }
        let answer = self.answer(context);
        if answer.is_ready() {
            return answer;
        }
        let now = Instant::now();
        if ends.is_some_and(|ends| ends <= now) {
            return Poll::Ready(Err(GpuError::Timeout { device: self.name.clone(), deadline }));
        }
        let hand_over_at = *self.hand_over_at.get_or_insert(now + OWN_POLLING);
        if now < hand_over_at || !self.hand_over() {
            // Others have their turn: threads of the process, of which a software driver is one,
            // and the executor's tasks.
            std::thread::yield_now();
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

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
    device: wgpu::Device,
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Below this, a deadline is watched by polling again and again instead of one wait.
///
/// wgpu-core 30.0.1 panics when a wait expires just as the submission ends and another thread
/// submits (an assertion in `Device::maintain`). A wait that expires after a second or more is for
/// a device that hangs, where nothing just ends.
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
        return device
            .poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout })
            .map(drop);
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
        let (label, polled) = (name.clone(), device.clone());
        let thread = std::thread::Builder::new().name("syncbn-poll".into()).spawn(move || {
            for Job { submission, deadline, ends, reply } in received {
                match wait(&polled, submission, ends, &reply) {
                    Ok(()) => {}
                    Err(wgpu::PollError::Timeout) => {
                        reply.send(Err(GpuError::Timeout { device: label.clone(), deadline }))
                    }
                    Err(error) => reply.send(Err(GpuError::Readback {
                        device: label.clone(),
                        message: error.to_string(),
                    })),
                }
            }
        });
        Self { device, name, jobs: Some(jobs), thread: thread.ok() }
    }

    /// A future that ends when the callback registered by `register` answers, or when the
    /// submission's deadline passes.
    pub fn watch(
        self: &Arc<Self>,
        submission: wgpu::SubmissionIndex,
        deadline: Duration,
        register: impl FnOnce(Reply),
    ) -> Waiting {
        let (sender, receiver) = oneshot::channel();
        let reply = Reply { sender: Arc::new(Mutex::new(Some(sender))) };
        register(reply.clone());
        let job =
            Some(Job { submission, deadline, ends: Instant::now().checked_add(deadline), reply });
        let (device, name, poller) = (self.device.clone(), self.name.clone(), Arc::downgrade(self));
        Waiting { device, name, receiver, job, poller, hand_over_at: None }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let Some(thread) = self.thread.take() else { return };
        // Joined, so that no thread is inside the driver while the process unloads it; not by
        // itself, which would wait forever.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// The largest staging buffer that is kept for later calls: sums of 65,536 channels. Whole tensors
/// are read seldom.
const MAX_KEPT_BYTES: u64 = 1 << 20;

/// A staging buffer with a copy on its way to it. It is used again once it has been read.
#[derive(Debug)]
pub(super) struct Staging {
    lease: Lease,
    device: String,
}

/// Records a copy of `source` to a buffer that the host can map.
pub(super) fn copy_out(
    gpu: &Gpu,
    encoder: &mut wgpu::CommandEncoder,
    source: &BufferSlice,
) -> Staging {
    let Ok(lease) = gpu.context.staging.take(source.size_bytes, |size| {
        trace::allocation(size);
        let buffer = gpu.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("syncbn readback"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Ok::<_, Infallible>(BufferSlice::new(buffer, 0, size))
    });
    // Not while it is mapped, or may come to be.
    lease.set_comes_back(false);
    encoder.copy_buffer_to_buffer(
        &source.buffer,
        source.offset_bytes,
        &lease.buffer,
        0,
        source.size_bytes,
    );
    Staging { lease, device: gpu.name().to_owned() }
}

impl Staging {
    /// A future that ends when it is mapped.
    pub fn map(
        &self,
        poller: &Arc<Poller>,
        submission: wgpu::SubmissionIndex,
        deadline: Duration,
    ) -> Waiting {
        let device = self.device.clone();
        poller.watch(submission, deadline, |reply| {
            self.lease.buffer.map_async(
                wgpu::MapMode::Read,
                ..self.lease.size_bytes,
                move |result| {
                    reply.send(result.map_err(|error| GpuError::Readback {
                        device,
                        message: error.to_string(),
                    }));
                },
            );
        })
    }

    /// Its bytes, now that it is mapped.
    pub fn take(self) -> Result<Vec<u8>, GpuError> {
        let view = self.lease.buffer.get_mapped_range(..self.lease.size_bytes);
        let view = view.map_err(|error| GpuError::Readback {
            device: self.device.clone(),
            message: error.to_string(),
        })?;
        let bytes = view.to_vec();
        drop(view);
        self.lease.buffer.unmap();
        self.lease.set_comes_back(self.lease.size_bytes <= MAX_KEPT_BYTES);
        Ok(bytes)
    }
}
