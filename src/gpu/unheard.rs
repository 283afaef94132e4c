//! Errors of calls that do not wait.
//!
//! Natively an error scope answers at once, and the call that opened it returns the error. In a
//! browser the answer comes later. It is kept, and the next call that waits returns it.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;

use super::Pending;
use crate::error::Error;

/// Scopes of a device that have not answered yet, in the order in which they were closed.
#[derive(Default)]
pub(super) struct Unheard {
    /// Whether there may be any. Natively there are none, and no lock is taken.
    any: AtomicBool,
    scopes: Mutex<Scopes>,
    waiters: Arc<Waiters>,
}

/// Wakers of all calls that wait for scopes. A scope keeps only the last waker that polled it.
/// Every call polls with this waker, so none replaces another.
#[derive(Default)]
struct Waiters(Mutex<Vec<Waker>>);

impl Waiters {
    fn add(&self, waker: &Waker) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        // Woken after the lock is free, because a waker may run anything.
        let waiting = take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[derive(Default)]
struct Scopes {
    open: VecDeque<Pending<()>>,
    /// The first error of those that have answered.
    caught: Option<Error>,
}

impl Scopes {
    /// Takes the answers that are there, from the front.
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some(first) = self.open.front_mut() {
            let Poll::Ready(answer) = first.as_mut().poll(context) else { return Poll::Pending };
            self.open.pop_front();
            if let Err(error) = answer {
                self.caught.get_or_insert(error);
            }
        }
        Poll::Ready(())
    }
}

impl Unheard {
    /// The result of a scope, if it has answered. Otherwise `Ok`, and its answer is kept.
    pub fn now(
        &self,
        scope: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Result<(), Error> {
        if cfg!(target_arch = "wasm32") {
            return self.keep(scope.boxed());
        }
        scope.now_or_never().unwrap_or(Ok(()))
    }

    fn keep(&self, mut scope: Pending<()>) -> Result<(), Error> {
        let waker = Waker::from(self.waiters.clone());
        let mut context = Context::from_waker(&waker);
        if let Poll::Ready(answer) = scope.as_mut().poll(&mut context) {
            return answer;
        }
        let mut scopes = self.lock();
        scopes.open.push_back(scope);
        self.any.store(true, Ordering::Relaxed);
        // Answers come in order, so this empties the queue as fast as the browser answers.
        let _ = scopes.drain(&mut context);
        Ok(())
    }

    /// Waits until every kept scope has answered. Returns the first error. If it is dropped before,
    /// the scopes stay for the next call.
    pub async fn hear(&self) -> Result<(), Error> {
        if !self.any.load(Ordering::Relaxed) {
            return Ok(());
        }
        let waker = Waker::from(self.waiters.clone());
        poll_fn(|context| {
            self.waiters.add(context.waker());
            let mut scopes = self.lock();
            if scopes.drain(&mut Context::from_waker(&waker)).is_pending() {
                return Poll::Pending;
            }
            self.any.store(false, Ordering::Relaxed);
            Poll::Ready(scopes.caught.take().map_or(Ok(()), Err))
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Scopes> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unheard").field("any", &self.any).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::oneshot;
    use pollster::block_on;

    use super::*;
    use crate::error::GpuError;

    fn refused(message: &str) -> Error {
        let device = "page".to_owned();
        GpuError::Refused { device, phase: "forward", message: message.to_owned() }.into()
    }

    /// A scope that answers when its sender does.
    fn scope() -> (oneshot::Sender<Result<(), Error>>, Pending<()>) {
        let (sender, receiver) = oneshot::channel();
        (sender, async move { receiver.await.unwrap() }.boxed())
    }

    #[test]
    fn an_answer_that_is_there_is_returned_at_once() {
        let unheard = Unheard::default();
        let failed = async { Err(refused("now")) }.boxed();
        assert_eq!(unheard.keep(failed), Err(refused("now")));
        assert_eq!(block_on(unheard.hear()), Ok(()));
    }

    #[test]
    fn the_first_error_of_those_that_answer_later_is_heard_once() {
        let unheard = Unheard::default();
        let (scopes, kept): (Vec<_>, Vec<_>) = (0..3).map(|_| scope()).unzip();
        for scope in kept {
            assert_eq!(unheard.keep(scope), Ok(()));
        }
        assert_eq!(unheard.hear().now_or_never(), None);
        let answers = [Ok(()), Err(refused("first")), Err(refused("second"))];
        for (scope, answer) in scopes.into_iter().zip(answers) {
            scope.send(answer).unwrap();
        }
        assert_eq!(block_on(unheard.hear()), Err(refused("first")));
        assert_eq!(block_on(unheard.hear()), Ok(()));
    }

    /// Each is a task of its own, as promises of a page are.
    #[test]
    fn whoever_waits_is_woken_whoever_polled_last() {
        let unheard = Unheard::default();
        let (first, kept) = scope();
        unheard.keep(kept).unwrap();
        let wakes = [(); 2].map(|()| Arc::new(Counted::default()));
        let wakers = wakes.clone().map(Waker::from);
        let mut waiting = [unheard.hear().boxed(), unheard.hear().boxed()];
        for (waiting, waker) in waiting.iter_mut().zip(&wakers) {
            assert!(waiting.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        }
        // A call that does not wait polls the same scopes.
        let (second, kept) = scope();
        unheard.keep(kept).unwrap();
        first.send(Err(refused("first"))).unwrap();
        second.send(Ok(())).unwrap();
        for woken in &wakes {
            assert!(woken.0.load(Ordering::Relaxed) > 0, "nobody sleeps for ever");
        }
        let [a, b] = waiting.map(block_on);
        assert_eq!((a, b), (Err(refused("first")), Ok(())));
    }

    #[derive(Default)]
    struct Counted(std::sync::atomic::AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn scopes_that_have_answered_do_not_pile_up() {
        let unheard = Unheard::default();
        for _ in 0..100 {
            let (sender, kept) = scope();
            unheard.keep(kept).unwrap();
            sender.send(Ok(())).unwrap();
        }
        assert!(unheard.lock().open.len() <= 1);
    }
}
