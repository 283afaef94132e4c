//! The transport of a group of one. It never waits.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};

use super::{Collective, CollectiveError, Gathered, Survivors};

/// A group of one rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SingleRank;

impl Collective for SingleRank {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_gather(
        &self,
        message: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        ready(Ok(vec![message.into()])).boxed()
    }

    fn abort(&self, _: Vec<u8>) {}

    fn split(&self, _: u64, _: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        Ok(Arc::new(Self))
    }
    fn supports_survivors(&self) -> bool {
        true
    }

    fn survivors(&self, _: Duration) -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
        ready(Ok(Survivors { transport: Arc::new(Self), ranks: vec![0] })).boxed()
    }
}
