//! Process groups that cannot be made, and exchanges that failed.

use std::time::Duration;

/// Wishes about ranks that cannot be met. Every rank finds the same error, and the group goes on.
/// Ranks are those of the group that was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A rank that does not exist.
    #[error("there is no rank {rank}: the group has ranks 0 to {}", world_size - 1)]
    OutOfRange {
        /// The rank.
        rank: usize,
        /// Ranks of the group.
        world_size: usize,
    },
    /// A rank in two lists, or twice in one.
    #[error("rank {rank} is listed twice; process groups are disjoint")]
    Twice {
        /// The rank.
        rank: usize,
    },
    /// A rank that is not among those of its own group.
    #[error("rank {rank} asks for the group {list:?}, which it is not a member of")]
    NotAMember {
        /// The rank.
        rank: usize,
        /// The group it asked for.
        list: Vec<usize>,
    },
    /// Ranks that ask for different things.
    #[error("rank {rank} asks for {found}, expected {expected}, as most ranks")]
    Disagree {
        /// The first rank that differs.
        rank: usize,
        /// What it asks for.
        found: String,
        /// What is asked for by the others.
        expected: String,
    },
}

/// An exchange with other ranks that failed. `at` names layer, phase and exchange of the rank that
/// reports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Ranks did not come in time.
    #[error("{at}: rank(s) {ranks:?} did not come within {deadline:?}")]
    Late {
        /// Where.
        at: String,
        /// Who is missing.
        ranks: Vec<usize>,
        /// The deadline that passed.
        deadline: Duration,
    },
    /// A rank is gone.
    #[error("{at}: rank {rank} {}", if *panicked { "panicked" } else { "has left the group" })]
    Left {
        /// Where.
        at: String,
        /// Who.
        rank: usize,
        /// Whether it was unwinding from a panic.
        panicked: bool,
    },
    /// A rank has failed and said so.
    #[error("{at}: rank {rank} failed at {reason}")]
    Aborted {
        /// Where.
        at: String,
        /// Who.
        rank: usize,
        /// Where it was, and its error.
        reason: String,
    },
    /// Ranks are not at the same place, or not set up alike.
    #[error("{at}: {what} of rank {rank} is {found}, expected {expected}, as on most ranks")]
    Mismatch {
        /// Where.
        at: String,
        /// The first rank that differs.
        rank: usize,
        /// What differs.
        what: &'static str,
        /// What most ranks have.
        expected: String,
        /// What this rank has.
        found: String,
    },
    /// An earlier call of this rank has begun and does not go on, as a future that nobody polls.
    /// Calls exchange in the order in which they were made: poll both, as `futures::join!` does, or
    /// drop the earlier one.
    #[error(
        "{at}: this rank's own earlier call, {earlier}, did not go on within {limit:?}, and the group has failed; await calls in the order in which they begin, or all at once with `futures::join!`"
    )]
    Blocked {
        /// Where.
        at: String,
        /// The earlier call.
        earlier: String,
        /// How long this one waited for it.
        limit: Duration,
    },
    /// A rank sent what is not a message of this protocol.
    #[error("{at}: the message of rank {rank} cannot be used: {message}")]
    Frame {
        /// Where.
        at: String,
        /// Who.
        rank: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The transport failed.
    #[error("{at}: the transport failed: {message}")]
    Transport {
        /// Where.
        at: String,
        /// What it says.
        message: String,
    },
    /// An exchange of the group has failed before; make a new group to go on.
    #[error("{at}: the process group refuses work since an exchange failed: {cause}")]
    Poisoned {
        /// What was asked for.
        at: String,
        /// The first failure.
        cause: String,
    },
}
