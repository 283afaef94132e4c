//! Communication of ranks: one primitive, the all-gather of one message from every rank, and the
//! operations that use it.
//!
//! Owns the trait [`Collective`] that a transport implements, the message frame, the transport
//! among ranks of one process, and process groups. GPUs and the meaning of values in a message are
//! unknown here. The module `exchange` knows the latter.

mod comparison;
pub mod conformance;
pub(crate) mod frame;
mod gather;
mod list;
mod local;
mod merged;
mod operation;
mod peers;
mod place;
mod process_group;
mod reduce;
mod single;
mod split;
mod survivors;
mod synchronization;
mod turns;
mod uneven;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};

pub(crate) use comparison::Settings;
#[allow(unused_imports, reason = "layers give it to `Exchange::begin`")]
pub(crate) use frame::ANY_SUBJECT;
pub(crate) use frame::UNANNOUNCED;
pub(crate) use frame::{Header, NodePayload, Payload, Phase, Values};
pub(crate) use gather::{Answer, ListError, Said};
pub(crate) use list::{pack, unpack};
pub use local::{LocalGroup, LocalRank};
pub(crate) use merged::Merged;
pub(crate) use operation::Operation;
pub(crate) use peers::Again;
pub(crate) use place::Place;
pub use process_group::ProcessGroup;
pub use reduce::{Part, ReduceOp};
pub use single::SingleRank;
pub use survivors::Survivors;
pub use synchronization::{Started, Synchronization};
pub use uneven::UnevenSteps;

use crate::timer;

/// The messages of all ranks, in rank order.
pub type Gathered = Vec<Arc<[u8]>>;

/// A transport among the ranks of one group. The crate's own is [`LocalGroup`]. Others are in
/// separate crates.
///
/// A value stands for one rank. Calls of the ranks are matched by their order: the first call of
/// one with the first of the others, and so on. After an error the transport is broken: every later
/// call of any rank returns an error at once.
///
/// Dropping the last clone of a rank leaves the group. Peers that wait for it, or come to wait for
/// it, get [`CollectiveError::Left`]. [`conformance`] has the suite that every transport must pass.
pub trait Collective: fmt::Debug + Send + Sync {
    /// This rank, 0 .. `world_size`.
    fn rank(&self) -> usize;

    /// Ranks of the group.
    fn world_size(&self) -> usize;

    /// Gives `message` to every rank and gets the messages of all. The message is sent when this
    /// returns. Dropping the future before it is ready counts as leaving the group.
    ///
    /// # Errors
    /// [`CollectiveError`], the same on every rank that waits, at the latest when `deadline` has
    /// passed.
    fn all_gather(
        &self,
        message: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>>;

    /// Whether statistics and gradients use [`all_reduce`](Self::all_reduce), because it costs less
    /// than gathering them. It is the same on every rank.
    fn supports_all_reduce(&self) -> bool {
        false
    }

    /// All-reduce: merges the messages of all ranks and gives everyone the same result. They merge
    /// along the canonical tree over ranks (`docs/PROTOCOL.md`), left before right. So the result
    /// has the same bits with every transport. The default merges gathered messages. Calls of it
    /// count among those of [`all_gather`](Self::all_gather), and behave like them otherwise.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    fn all_reduce(
        &self,
        message: Vec<u8>,
        op: ReduceOp,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Arc<[u8]>, CollectiveError>> {
        let gathered = self.all_gather(message, deadline);
        async move { Ok(reduce::reduce_gathered(&gathered.await?, op)) }.boxed()
    }

    /// The time on the clock by which the transport counts deadlines, from any beginning. Calls of
    /// a rank wait for each other by the same clock. The default counts all time. A transport that
    /// leaves out the time in which the process was suspended has a clock of its own.
    fn now(&self) -> Duration {
        timer::now()
    }

    /// Breaks the group: every rank that waits or comes to wait gets [`CollectiveError::Aborted`]
    /// with this message.
    fn abort(&self, message: Vec<u8>);

    /// The transport among some of the ranks, in the order of `members`, which includes this rank.
    /// Every member calls it with the same arguments, after all have agreed on them. Each split of
    /// a group has another `key`. A member that is ahead may have broken the group meanwhile; that
    /// is no failure of the new one.
    ///
    /// # Errors
    /// [`CollectiveError`] when it cannot be made. A process group then notifies the other ranks,
    /// through this transport.
    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError>;

    /// The transport among the ranks that go on after the group has broken. All living ranks call
    /// it, and it waits for them until the deadline. All survivors get the same list. Of several
    /// parts of a group at most one goes on. Ranks of the other parts get
    /// [`CollectiveError::TooFew`]. A rank that comes too late gets
    /// [`CollectiveError::LeftBehind`]. The call breaks a working group.
    ///
    /// A dropped future withdraws the request. If the survivors were decided already, this rank
    /// leaves the new group.
    ///
    /// A transport that cannot know which ranks live keeps this default.
    ///
    /// # Errors
    /// [`CollectiveError`]. The default returns [`CollectiveError::Transport`].
    fn survivors(
        &self,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
        survivors::cannot()
    }

    /// Whether [`survivors`](Self::survivors) can agree on a group. A process group asks first, so
    /// that a group that works stays as it is where it cannot.
    fn supports_survivors(&self) -> bool {
        false
    }
}

/// Why a transport delivers no messages. Ranks are those of the transport's group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// Some ranks were late.
    #[error("ranks {ranks:?} did not come within {deadline:?}")]
    Late {
        /// The late ranks.
        ranks: Vec<usize>,
        /// The deadline that passed.
        deadline: Duration,
    },
    /// A rank is gone: it or its future was dropped, or its thread panicked.
    #[error("rank {rank} {}", if *panicked { "panicked" } else { "left" })]
    Left {
        /// That rank.
        rank: usize,
        /// Whether it was unwinding.
        panicked: bool,
    },
    /// A rank called [`Collective::abort`].
    #[error("rank {rank} aborted")]
    Aborted {
        /// That rank.
        rank: usize,
        /// Its message.
        message: Vec<u8>,
    },
    /// Too few ranks came to go on after the group has broken.
    #[error("ranks {present:?} are too few to go on without ranks {missing:?}")]
    TooFew {
        /// The ranks that came.
        present: Vec<usize>,
        /// The other ranks that are not known to be gone.
        missing: Vec<usize>,
    },
    /// The other ranks have gone on without this one.
    #[error("ranks {survivors:?} have gone on without this one")]
    LeftBehind {
        /// Their ranks.
        survivors: Vec<usize>,
    },
    /// The transport itself failed.
    #[error("the transport failed: {message}")]
    Transport {
        /// The transport's message.
        message: String,
    },
}
