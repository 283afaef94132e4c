//! A future of an exchange.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use crate::error::Error;

/// An exchange that is under way. If it is dropped before its end, the others get
/// [`ExchangeError::Aborted`](crate::error::ExchangeError::Aborted), and the process group refuses
/// further work.
pub type Started<T> = BoxFuture<'static, Result<T, Error>>;

/// Begins an exchange. With `true` it updates running statistics.
type Begin<T> = Box<dyn FnOnce(bool) -> Started<T> + Send>;

/// An exchange with all ranks, of
/// [`SyncBatchNorm::synchronize`](crate::SyncBatchNorm::synchronize). It borrows nothing, so it may
/// be awaited anywhere, or spawned.
///
/// It begins when it is first polled, or with [`start`](Self::start): from then on it has its place
/// among the exchanges of this rank, and the other ranks wait for it. If it is dropped before,
/// nothing is exchanged. If it is dropped between its beginning and its end, the others get
/// [`ExchangeError::Aborted`](crate::error::ExchangeError::Aborted), and the process group refuses
/// further work.
#[must_use = "the other ranks wait for it"]
pub struct Synchronization<T> {
    state: State<T>,
}

enum State<T> {
    Waiting { begin: Option<Begin<T>>, tracks: bool },
    Begun(Started<T>),
}

impl<T: Send + 'static> Synchronization<T> {
    pub(crate) fn new(begin: impl FnOnce(bool) -> Started<T> + Send + 'static) -> Self {
        Self { state: State::Waiting { begin: Some(Box::new(begin)), tracks: true } }
    }

    /// Begins now, and sends this rank's message if it is its turn. The result is awaited later.
    pub fn start(mut self) -> Started<T> {
        match (&mut self).now_or_never() {
            Some(result) => ready(result).boxed(),
            None => self.boxed(),
        }
    }

    /// Leaves running statistics and their counter as they are. For gradient sums it has no effect.
    /// All ranks must call it.
    pub fn untracked(mut self) -> Self {
        if let State::Waiting { tracks, .. } = &mut self.state {
            *tracks = false;
        }
        self
    }
}

impl<T> Future for Synchronization<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Waiting { begin, tracks } = &mut self.state
            && let Some(begin) = begin.take()
        {
            self.state = State::Begun(begin(*tracks));
        }
        match &mut self.state {
            State::Begun(exchange) => exchange.poll_unpin(context),
            State::Waiting { .. } => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for Synchronization<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Synchronization")
            .field("begun", &matches!(self.state, State::Begun(_)))
            .finish()
    }
}
