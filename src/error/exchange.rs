//! Process groups that cannot be made, and exchanges that failed.

use std::time::Duration;

/// Why process groups cannot be made, or a rank cannot broadcast. Every rank finds the same error,
/// and the group goes on. Ranks are those of the group that was asked.
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
    #[error("rank {rank} asks for {found}, expected {expected}, as of {}", ranks(*other, *agreeing))]
    Disagree {
        /// The first rank that differs from most.
        rank: usize,
        /// What it asks for.
        found: String,
        /// What most ranks ask for; where equally many ask for each of two, the lowest rank.
        expected: String,
        /// The lowest rank that asks for what is expected.
        other: usize,
        /// How many ranks ask for what is expected.
        agreeing: usize,
    },
}

/// Why an exchange with other ranks failed. In every variant `at` says where the rank was that
/// reports: its layer, the phase and the number of the exchange. Ranks are those of the outermost
/// process group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Ranks did not come in time.
    #[error(
        "{at}: {}",
        if *own {
            format!("this rank came too late: others had waited for rank(s) {ranks:?} for {deadline:?}")
        } else {
            format!("rank(s) {ranks:?} did not come within {deadline:?}")
        }
    )]
    Late {
        /// Where.
        at: String,
        /// Who was missing.
        ranks: Vec<usize>,
        /// The deadline that passed.
        deadline: Duration,
        /// Whether the rank that reports is one of them: it came when others had given up.
        own: bool,
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
    #[error("{at}: rank {rank} failed: {reason}")]
    Aborted {
        /// Where.
        at: String,
        /// Who.
        rank: usize,
        /// Where it was, and its error.
        reason: String,
    },
    /// Ranks are not at the same place: in other calls, or in other layers.
    #[error("{at}: {what} of rank {rank} is {found}, expected {expected}, as on {}", ranks(*other, *agreeing))]
    Mismatch {
        /// Where.
        at: String,
        /// What differs.
        what: &'static str,
        /// The first rank that differs from most.
        rank: usize,
        /// What this rank has.
        found: Box<str>,
        /// What most ranks have; where equally many have each of two, what the lowest rank has.
        expected: Box<str>,
        /// The lowest rank that has what is expected.
        other: usize,
        /// How many ranks have what is expected.
        agreeing: usize,
    },
    /// Ranks have configured a layer differently, or sum up slices of other lengths.
    #[error("{at}: {name} of rank {rank} is {found}, expected {expected}, as on {}", ranks(*other, *agreeing))]
    Setting {
        /// Where.
        at: String,
        /// The setting, as in `docs/PROTOCOL.md`: `eps`, `momentum`, `weight_init[3]`.
        name: Box<str>,
        /// The first rank that differs from most.
        rank: usize,
        /// Its value.
        found: Box<str>,
        /// The value of most ranks; where equally many have each of two, that of the lowest rank.
        expected: Box<str>,
        /// The lowest rank that has the expected value.
        other: usize,
        /// How many ranks have the expected value.
        agreeing: usize,
    },
    /// Ranks begin with different parameters or running statistics, or have loaded different
    /// states.
    #[error(
        "{at}: {name} of rank {rank} ({found}) differs from that of {} ({expected}); call broadcast_state before the first step, or load the same state on every rank",
        ranks(*other, *agreeing)
    )]
    State {
        /// Where.
        at: String,
        /// Which part of the state: `weight`, `bias`, `running_mean`, `running_var` or
        /// `num_batches_tracked`.
        name: Box<str>,
        /// The first rank that differs from most.
        rank: usize,
        /// A checksum of what it has; of `num_batches_tracked` its value.
        found: Box<str>,
        /// The same of most ranks; where equally many have each of two, of the lowest rank.
        expected: Box<str>,
        /// The lowest rank that has what is expected.
        other: usize,
        /// How many ranks have what is expected.
        agreeing: usize,
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
    /// Too few ranks came to go on after the group has failed.
    #[error(
        "{at}: rank(s) {present:?} came in time, which is too few to go on without rank(s) {missing:?}; ask again, or begin again from a checkpoint"
    )]
    TooFew {
        /// Where.
        at: String,
        /// The ranks that came.
        present: Vec<usize>,
        /// The other ranks that are not known to be gone.
        missing: Vec<usize>,
    },
    /// Other ranks have gone on without this one, which came too late.
    #[error(
        "{at}: this rank came too late: rank(s) {survivors:?} have gone on without it; begin again from their checkpoint"
    )]
    LeftBehind {
        /// Where.
        at: String,
        /// The ranks that have gone on.
        survivors: Vec<usize>,
    },
    /// An exchange of the group has failed before; make a new group to go on.
    #[error(
        "{at}: the process group refuses work since an exchange failed; go on in a new group, such as that of survivors, and move its layers there with in_group: {cause}"
    )]
    Poisoned {
        /// What was asked for.
        at: String,
        /// The first failure.
        cause: String,
    },
}

/// Some ranks, by the lowest of them and their number.
fn ranks(lowest: usize, count: usize) -> String {
    match count {
        0 | 1 => format!("rank {lowest}"),
        _ => format!("rank {lowest} and {} more", count - 1),
    }
}
