//! wgpu runs callbacks only during a poll of the device. At first a waiting future polls the device
//! itself, each time it is polled: most results arrive before a thread could wake to wait for them.
//! Longer waits go to the polling thread of the device, which sleeps otherwise. An application may
//! poll the device too.

use std::pin::Pin;
use std::sync::{Arc, Weak, mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::channel::oneshot;

use super::Reply;
use crate::error::GpuError;

/// Time for which a future polls the device before the polling thread waits for it. It covers the
/// kernels of a small tensor. Beside longer work the cost of waking two threads is small, and
/// polling would take a processor from a software driver.
const OWN_POLLING: Duration = Duration::from_micros(200);

/// Ends when the device has answered, or with an error when the deadline has passed.
pub(in crate::gpu) struct Waiting {
    device: wgpu::Device,
    name: String,
    receiver: oneshot::Receiver<Result<(), GpuError>>,
    /// The polling thread's job, until that thread has it.
    job: Option<Job>,
    /// Weak: if the device is dropped before its results arrive, the future goes on polling by
    /// itself.
    poller: Weak<Poller>,
    /// Time at which the polling thread takes over.
    hand_over_at: Option<Instant>,
}

impl Waiting {
    fn failed(&self, message: String) -> GpuError {
        GpuError::Readback { device: self.name.clone(), message }
    }

    /// The answer, if it has arrived.
    fn answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), GpuError>> {
        let answer = std::task::ready!(self.receiver.poll_unpin(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(self.failed("its callback was dropped".into()))))
    }

    /// Lets the polling thread wait. `false` if it has ended.
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
        let Job { ends, deadline, .. } = *job;
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
            // Lets other threads run, such as those of a software driver, and the executor's other
            // tasks.
            std::thread::yield_now();
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

struct Job {
    submission: wgpu::SubmissionIndex,
    deadline: Duration,
    /// End of the deadline. It counts from the start, so waiting behind another job does not extend
    /// it.
    ends: Option<Instant>,
    reply: Reply,
}

/// The polling thread of one device.
#[derive(Debug)]
pub(in crate::gpu) struct Poller {
    device: wgpu::Device,
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Below this, repeated polling watches a deadline instead of one wait.
///
/// wgpu-core 30.0.1 panics when a wait expires just as the submission ends and another thread
/// submits (an assertion in `Device::maintain`). A wait of a second or more expires only on a
/// device that hangs, where no submission ends.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Pause between two polls, about the shortest sleep of a system.
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
        let label = name.clone();
        let polled = device.clone();
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
        let (reply, receiver) = super::reply();
        register(reply.clone());
        let ends = Instant::now().checked_add(deadline);
        Waiting {
            device: self.device.clone(),
            name: self.name.clone(),
            receiver,
            job: Some(Job { submission, deadline, ends, reply }),
            poller: Arc::downgrade(self),
            hand_over_at: None,
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let Some(thread) = self.thread.take() else { return };
        // Joined, because no thread may be inside the driver while the process unloads it. The
        // polling thread does not join itself, which would wait forever.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}
