//! The crate's own transport, with a hand on what passes through it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use syncbn::ProcessGroup;
use syncbn::collective::{
    Collective, CollectiveError, Gathered, LocalGroup, LocalRank, ReduceOp, Survivors,
};

/// The ranks of a new group in this process, each of which waits so long for its peers.
pub fn process_groups(world_size: usize, deadline: Duration) -> Vec<ProcessGroup> {
    groups_over(world_size, deadline, |rank| rank)
}

/// The same, of ranks whose statistics are all-reduced.
pub fn all_reduce_groups(world_size: usize, deadline: Duration) -> Vec<ProcessGroup> {
    groups_over(world_size, deadline, |rank| {
        Tapped::new(rank, |message| message).all_reducing(true)
    })
}

/// The same, over what `transport` makes of the crate's own.
pub fn groups_over<C: Collective + 'static>(
    world_size: usize,
    deadline: Duration,
    transport: impl Fn(LocalRank) -> C,
) -> Vec<ProcessGroup> {
    let group = |rank| ProcessGroup::new(transport(rank)).with_deadline(deadline);
    LocalGroup::ranks(world_size).into_iter().map(group).collect()
}

/// Runs a body for every rank at the same time, each on a thread of its own; the results in rank
/// order.
pub fn on_threads<R: Send, T: Send>(ranks: Vec<R>, body: impl Fn(R) -> T + Sync) -> Vec<T> {
    let body = &body;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            ranks.into_iter().map(|rank| scope.spawn(move || body(rank))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a rank that does not panic"))
            .collect()
    })
}

/// The crate's own transport, whose messages pass through a function before they go.
pub struct Tapped<T> {
    inner: LocalRank,
    tap: T,
    all_reduces: bool,
    gathers: bool,
    refusal: Option<CollectiveError>,
    aborts: Arc<AtomicUsize>,
}

impl<T: Fn(Vec<u8>) -> Vec<u8> + Send + Sync> Tapped<T> {
    /// One that gathers and does not all-reduce.
    pub fn new(inner: LocalRank, tap: T) -> Self {
        let refusal = None;
        let aborts = Arc::default();
        Self { inner, tap, all_reduces: false, gathers: true, refusal, aborts }
    }

    /// One that supports all-reduce, or not.
    pub fn all_reducing(self, all_reduces: bool) -> Self {
        Self { all_reduces, ..self }
    }

    /// One whose every all-gather is an error, as of a transport that has too many ranks for it.
    pub fn without_all_gather(self) -> Self {
        Self { gathers: false, ..self }
    }

    /// One that cannot take its place in any new group, if there is an error of that.
    pub fn refusing_splits(self, refusal: Option<CollectiveError>) -> Self {
        Self { refusal, ..self }
    }

    /// Counts there how often this rank breaks the group.
    pub fn counting_aborts(self, aborts: Arc<AtomicUsize>) -> Self {
        Self { aborts, ..self }
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
        if !self.gathers {
            let message = "too many to gather from".to_owned();
            return ready(Err(CollectiveError::Transport { message })).boxed();
        }
        self.inner.all_gather((self.tap)(message), deadline)
    }

    fn supports_all_reduce(&self) -> bool {
        self.all_reduces
    }

    fn all_reduce(
        &self,
        message: Vec<u8>,
        op: ReduceOp,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Arc<[u8]>, CollectiveError>> {
        self.inner.all_reduce((self.tap)(message), op, deadline)
    }

    fn abort(&self, message: Vec<u8>) {
        self.aborts.fetch_add(1, Ordering::Relaxed);
        self.inner.abort(message);
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        if let Some(error) = &self.refusal {
            return Err(error.clone());
        }
        self.inner.split(key, members)
    }

    fn supports_survivors(&self) -> bool {
        self.inner.supports_survivors()
    }

    fn survivors(
        &self,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
        self.inner.survivors(deadline)
    }
}

/// A message of these frames: each behind its length.
pub fn listed(frames: &[&[u8]]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&(frame.len() as u64).to_le_bytes(), *frame].concat()).collect()
}

/// The frames of a message.
pub fn frames(mut message: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = message.split_first_chunk() {
        let (frame, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
        frames.push(frame);
        message = rest;
    }
    frames
}
