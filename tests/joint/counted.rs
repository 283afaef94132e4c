//! A transport that counts its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use syncbn::collective::{Collective, CollectiveError, Gathered, LocalRank};

#[derive(Debug)]
pub struct Counted {
    inner: LocalRank,
    gathers: Arc<AtomicUsize>,
}

impl Counted {
    pub fn new(inner: LocalRank, gathers: Arc<AtomicUsize>) -> Self {
        Self { inner, gathers }
    }
}

impl Collective for Counted {
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
        self.gathers.fetch_add(1, Ordering::Relaxed);
        self.inner.all_gather(message, deadline)
    }

    fn abort(&self, message: Vec<u8>) {
        self.inner.abort(message);
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        self.inner.split(key, members)
    }
}
