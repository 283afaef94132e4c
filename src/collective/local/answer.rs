//! An answer that is given while a lock is held. The waiting task is woken after the lock is
//! released: a waker may run anything, even the woken future itself, which takes the same lock.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use futures::task::AtomicWaker;
use web_time::Instant;

#[derive(Debug)]
struct Slot<T> {
    answer: Mutex<Option<T>>,
    waiting: AtomicWaker,
}

impl<T> Slot<T> {
    fn take(&self) -> Option<T> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The side that gives the answer.
#[derive(Debug)]
pub(super) struct Asked<T>(Arc<Slot<T>>);

/// The side that waits for the answer.
#[derive(Debug)]
pub(super) struct Waiting<T>(Arc<Slot<T>>);

/// A question, as both sides have it.
pub(super) fn ask<T>() -> (Asked<T>, Waiting<T>) {
    let slot = Arc::new(Slot { answer: Mutex::new(None), waiting: AtomicWaker::new() });
    (Asked(slot.clone()), Waiting(slot))
}

impl<T> Asked<T> {
    /// Gives the answer. Returns who waits for it, to be woken when no lock is held.
    #[must_use]
    pub fn give(self, answer: T) -> Option<Waker> {
        *self.0.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.0.waiting.take()
    }
}

impl<T> Waiting<T> {
    /// Waits a moment, without sleeping, for an answer that another thread gives.
    pub fn look_out(&self, at_most: Duration) -> Option<T> {
        let started = Instant::now();
        loop {
            match self.0.take() {
                None if started.elapsed() < at_most => thread::yield_now(),
                answer => return answer,
            }
        }
    }
}

impl<T> Future for Waiting<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if let Some(answer) = self.0.take() {
            return Poll::Ready(answer);
        }
        self.0.waiting.register(context.waker());
        // It may have come in between.
        self.0.take().map_or(Poll::Pending, Poll::Ready)
    }
}
