//! Groups of the ranks that survive a failure.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};

use super::{Collective, CollectiveError, Phase, ProcessGroup};
use crate::checksum::Checksum;
use crate::error::Error;

/// Place of a call in errors.
const AT: &str = "survivors of the group";

/// The surviving ranks of a broken group, the result of [`Collective::survivors`].
#[derive(Clone, Debug)]
pub struct Survivors {
    /// The transport among them.
    pub transport: Arc<dyn Collective>,
    /// Their ranks in the broken group, ascending: rank i of the transport was `ranks[i]`.
    pub ranks: Vec<usize>,
}

/// The error of a transport that cannot know which ranks live.
pub(super) fn cannot() -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
    let message = "it cannot agree on which ranks live; begin again from a checkpoint".to_owned();
    async { Err(CollectiveError::Transport { message }) }.boxed()
}

impl ProcessGroup {
    /// The group of the ranks that go on after a failed exchange, in their old order. All living
    /// ranks call it. It waits for the others until the deadline.
    ///
    /// Move every layer there with [`set_group`](crate::SyncBatchNorm::set_group) or
    /// [`in_group`](crate::SyncBatchNorm::in_group), in the same order on all ranks. A layer keeps
    /// its parameters and running statistics. A failed pass has changed nothing, but earlier layers
    /// of the network may have counted the step. Set their running statistics back to those of its
    /// beginning, or copy one rank's to all with
    /// [`broadcast_state`](crate::SyncBatchNorm::broadcast_state). Passes saved before are not
    /// differentiated in the new group.
    ///
    /// Once all living ranks have come, they go on. When the deadline passes, the ranks that have
    /// come go on if they are more than half of the ranks that are not known to be gone, or half of
    /// them with the lowest rank. So of two parts that cannot reach each other, one goes on. A rank
    /// that comes later gets [`ExchangeError::LeftBehind`].
    ///
    /// The call breaks a working group: its other ranks get [`ExchangeError::Aborted`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use syncbn::{ProcessGroup, collective::LocalGroup};
    ///
    /// let mut groups: Vec<_> = LocalGroup::ranks(3).into_iter().map(ProcessGroup::new).collect();
    /// drop(groups.remove(1));
    /// let threads = groups.into_iter().map(|group| {
    ///     std::thread::spawn(move || {
    ///         pollster::block_on(async {
    ///             assert!(group.barrier().await.is_err());
    ///             let group = group.survivors(Duration::from_secs(10)).await?;
    ///             group.barrier().await?;
    ///             Ok::<_, syncbn::Error>((group.rank(), group.world_ranks().to_vec()))
    ///         })
    ///     })
    /// });
    /// for (rank, thread) in threads.collect::<Vec<_>>().into_iter().enumerate() {
    ///     assert_eq!(thread.join().unwrap()?, (rank, vec![0, 2]));
    /// }
    /// # Ok::<(), syncbn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ExchangeError::TooFew`] if the ranks that came may not go on; this rank may ask again.
    /// [`ExchangeError::LeftBehind`] if others have gone on without this rank.
    /// [`ExchangeError::Transport`] from a transport that cannot know which ranks live, such as
    /// MPI's under a launcher that ends the job. Between processes also [`Left`], [`Late`] or
    /// `Transport` if a rank left, died or dropped its call after others had counted on it; this
    /// rank may ask again.
    ///
    /// # Cancel safety
    /// A dropped future withdraws the request. If the survivors were decided already, this rank
    /// leaves the new group.
    ///
    /// [`ExchangeError::LeftBehind`]: crate::error::ExchangeError::LeftBehind
    /// [`ExchangeError::TooFew`]: crate::error::ExchangeError::TooFew
    /// [`Left`]: crate::error::ExchangeError::Left
    /// [`Late`]: crate::error::ExchangeError::Late
    /// [`ExchangeError::Aborted`]: crate::error::ExchangeError::Aborted
    /// [`ExchangeError::Transport`]: crate::error::ExchangeError::Transport
    pub async fn survivors(&self, deadline: Duration) -> Result<Self, Error> {
        if self.transport.supports_survivors() {
            self.leave_for_survivors();
        }
        let found = self.transport.survivors(deadline).await;
        let Survivors { transport, ranks } = found.map_err(|error| self.named(error, &AT))?;
        let world_ranks: Arc<[usize]> = ranks.iter().map(|&rank| self.world_rank(rank)).collect();
        let mut id = Checksum::new();
        [self.id, u64::MAX].into_iter().for_each(|n| id.add_u64(n));
        world_ranks.iter().for_each(|&rank| id.add_u64(rank as u64));
        Ok(Self::of_transport(transport, id.finish(), world_ranks, self.deadline()))
    }

    /// Ends a working group: notifies its other ranks that this one asks for the survivors.
    fn leave_for_survivors(&self) {
        let reason = "it ends the group, to go on with the ranks that survive";
        self.fail(self.header(Phase::Forward), &AT, reason);
    }
}
