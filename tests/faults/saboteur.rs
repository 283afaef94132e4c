//! A transport whose rank does something wrong at one exchange; otherwise the crate's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use syncbn::collective::{Collective, CollectiveError, Frame, Gathered, LocalRank, Payload};

/// What the transport does. No test binary uses all of it.
#[allow(dead_code)]
#[derive(Clone, Debug)]
pub enum Sabotage {
    Nothing,
    Panic,
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends its frame with another payload.
    Replace(Payload),
}

#[derive(Debug)]
pub struct Saboteur {
    pub inner: LocalRank,
    pub sabotage: Sabotage,
    /// The exchange at which it does.
    pub at: usize,
    pub exchanges: AtomicUsize,
}

impl Saboteur {
    pub fn new(inner: LocalRank, sabotage: Sabotage, at: usize) -> Self {
        Self { inner, sabotage, at, exchanges: AtomicUsize::new(0) }
    }
}

impl Collective for Saboteur {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world_size(&self) -> usize {
        self.inner.world_size()
    }

    fn all_gather(
        &self,
        message: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        let due = self.exchanges.fetch_add(1, Ordering::Relaxed) == self.at;
        let message = match &self.sabotage {
            // Unwinds like a panic, without the message on the terminal.
            Sabotage::Panic if due => std::panic::resume_unwind(Box::new("planted")),
            Sabotage::Send(bytes) if due => bytes.clone(),
            Sabotage::Replace(payload) if due => {
                let frame = Frame::decode(&message).expect("a frame of the crate");
                Frame { payload: payload.clone(), ..frame }.encode()
            }
            _ => message,
        };
        self.inner.all_gather(message, deadline)
    }

    fn abort(&self, message: Vec<u8>) {
        self.inner.abort(message);
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        self.inner.split(key, members)
    }
}
