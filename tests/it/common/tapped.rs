//! The crate's own transport, whose messages pass through a function of the test before they go.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use syncbn::collective::{Collective, CollectiveError, Gathered, LocalRank};

pub struct Tapped<T> {
    inner: LocalRank,
    tap: T,
    merges: bool,
}

impl<T: Fn(Vec<u8>) -> Vec<u8> + Send + Sync> Tapped<T> {
    pub fn new(inner: LocalRank, tap: T) -> Self {
        Self { inner, tap, merges: false }
    }

    /// One that supports all-reduce, or not.
    #[allow(dead_code, reason = "no test binary uses all of it")]
    pub fn merging(self, merges: bool) -> Self {
        Self { merges, ..self }
    }
}

impl<T> fmt::Debug for Tapped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tapped").field(&self.inner).finish()
    }
}

impl<T: Fn(Vec<u8>) -> Vec<u8> + Send + Sync> Collective for Tapped<T> {
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
        self.inner.all_gather((self.tap)(message), deadline)
    }

    fn supports_all_reduce(&self) -> bool {
        self.merges
    }

    fn abort(&self, message: Vec<u8>) {
        self.inner.abort(message);
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        self.inner.split(key, members)
    }
}

/// A message of these frames: each behind its length.
#[allow(dead_code, reason = "no test binary uses all of it")]
pub fn listed(frames: &[&[u8]]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&(frame.len() as u64).to_le_bytes(), *frame].concat()).collect()
}

/// The frames of a message.
#[allow(dead_code, reason = "no test binary uses all of it")]
pub fn frames(mut message: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = message.split_first_chunk() {
        let (frame, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
        frames.push(frame);
        message = rest;
    }
    frames
}
