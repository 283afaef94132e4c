//! The crate's own transport as one that supports all-reduce.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use syncbn::collective::{Collective, CollectiveError, Gathered, LocalRank};
use syncbn::{ProcessGroup, collective::LocalGroup};

#[derive(Debug)]
struct Merging(LocalRank);

impl Collective for Merging {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn world_size(&self) -> usize {
        self.0.world_size()
    }

    fn all_gather(
        &self,
        message: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        self.0.all_gather(message, deadline)
    }

    fn supports_all_reduce(&self) -> bool {
        true
    }

    fn abort(&self, message: Vec<u8>) {
        self.0.abort(message);
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        self.0.split(key, members)
    }
}

/// The ranks of a new group whose statistics are all-reduced, each of which waits so long for its
/// peers.
pub fn all_reduce_groups(world_size: usize, deadline: Duration) -> Vec<ProcessGroup> {
    let group = |rank| ProcessGroup::new(Merging(rank)).with_deadline(deadline);
    LocalGroup::ranks(world_size).into_iter().map(group).collect()
}
