//! Process groups that cannot be made, and exchanges that failed.

use std::time::Duration;

/// Reasons why process groups cannot be made, or a rank cannot broadcast. Every rank finds the same
/// error, and the group goes on. Ranks are those of the group whose method was called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A rank that does not exist.
    #[error(
        "{call}: {} names rank {rank}, allowed: 0 to {}",
        argument(call, *list),
        world_size - 1
    )]
    OutOfRange {
        /// The call: `partition`, `subgroup`, `broadcast` or `broadcast_state`.
        call: &'static str,
        /// The list that names the rank: its position in `partition`, the lowest rank with this
        /// list in `subgroup`. `None`: the argument `from` of a broadcast.
        list: Option<usize>,
        /// The rank.
        rank: usize,
        /// Ranks of the group.
        world_size: usize,
    },
    /// A rank in two lists, or twice in one.
    #[error(
        "{call}: rank {rank} is {}, allowed: in one group, once; process groups are disjoint",
        if list == other {
            format!("twice in {}", argument(call, Some(*list)))
        } else {
            format!("in {} and in {}", argument(call, Some(*list)), argument(call, Some(*other)))
        }
    )]
    Twice {
        /// The call: `partition` or `subgroup`.
        call: &'static str,
        /// The rank.
        rank: usize,
        /// The first list with the rank: its position in `partition`, the lowest rank with this
        /// list in `subgroup`.
        list: usize,
        /// The second list with it, or the same if the rank is twice in it.
        other: usize,
    },
    /// A rank that is not among those of its own group in `subgroup`.
    #[error("subgroup: the list of rank {rank} is {list:?}, expected to contain rank {rank}")]
    NotAMember {
        /// The rank.
        rank: usize,
        /// The requested group.
        list: Vec<usize>,
    },
    /// Ranks with different requests in `partition`.
    #[error(
        "partition: the lists of rank {rank} are {found}, expected {expected}, as on {}",
        ranks(*other, *agreeing)
    )]
    Disagree {
        /// The first rank that differs from most.
        rank: usize,
        /// The request of this rank.
        found: String,
        /// The request of most ranks. Of equally frequent requests, that of the lowest rank.
        expected: String,
        /// The lowest rank with the expected request.
        other: usize,
        /// Number of ranks with the expected request.
        agreeing: usize,
    },
}

/// Reasons why an exchange with other ranks failed. In every variant `at` is the place of the
/// reporting rank: its layer, the phase and the number of the exchange. Ranks are those of the
/// outermost process group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Ranks did not come in time.
    #[error(
        "{at}: {}",
        if *own {
            format!(
                "this rank came too late: others had waited for rank(s) {ranks:?} for {deadline:?}"
            )
        } else {
            format!(
                "rank(s) {ranks:?} did not come within {deadline:?}; every rank must make this \
                call, and ranks of one thread must be polled together"
            )
        }
    )]
    Late {
        /// The place of the reporting rank.
        at: String,
        /// The missing ranks.
        ranks: Vec<usize>,
        /// The deadline that passed.
        deadline: Duration,
        /// Whether the reporting rank is one of them. It came after the others had given up.
        own: bool,
    },
    /// A rank is gone.
    #[error("{at}: rank {rank} {}", if *panicked { "panicked" } else { "has left the group" })]
    Left {
        /// The place of the reporting rank.
        at: String,
        /// That rank.
        rank: usize,
        /// Whether it was unwinding from a panic.
        panicked: bool,
    },
    /// A rank has failed and notified the others.
    #[error("{at}: rank {rank} failed: {}", without_place(reason, at))]
    Aborted {
        /// The place of the reporting rank.
        at: String,
        /// That rank.
        rank: usize,
        /// Its error. In a notice of another rank the place of that rank comes before it; the
        /// message leaves it out where it equals `at`.
        reason: String,
    },
    /// Ranks are not at the same place: in other calls, or in other layers.
    #[error(
        "{at}: {what} of rank {rank} is {found}, expected {expected}, as on {}{}",
        ranks(*other, *agreeing),
        hint(what)
    )]
    Mismatch {
        /// The place of the reporting rank.
        at: String,
        /// Name of the field that differs.
        what: &'static str,
        /// The first rank that differs from most.
        rank: usize,
        /// The value of this rank.
        found: Box<str>,
        /// The value of most ranks. Of equally frequent values, that of the lowest rank.
        expected: Box<str>,
        /// The lowest rank that has the expected value.
        other: usize,
        /// Number of ranks that have the expected value.
        agreeing: usize,
    },
    /// Ranks have configured a layer differently, or sum up slices of other lengths.
    #[error(
        "{at}: {name} of rank {rank} is {found}, expected {expected}, as on {}",
        ranks(*other, *agreeing)
    )]
    Setting {
        /// The place of the reporting rank.
        at: String,
        /// The setting, as in `docs/PROTOCOL.md`: `eps`, `momentum`, `weight_init[3]`.
        name: Box<str>,
        /// The first rank that differs from most.
        rank: usize,
        /// Its value.
        found: Box<str>,
        /// The value of most ranks. Of equally frequent values, that of the lowest rank.
        expected: Box<str>,
        /// The lowest rank that has the expected value.
        other: usize,
        /// Number of ranks that have the expected value.
        agreeing: usize,
    },
    /// Ranks begin with different parameters or running statistics, or have loaded different
    /// states.
    #[error(
        "{at}: {name} of rank {rank} ({}{found}) differs from that of {} ({}{expected}); call \
        broadcast_state before the first step, or load the same state on every rank",
        kind(name), ranks(*other, *agreeing), kind(name)
    )]
    State {
        /// The place of the reporting rank.
        at: String,
        /// The part of the state: `weight`, `bias`, `running_mean`, `running_var` or
        /// `num_batches_tracked`.
        name: Box<str>,
        /// The first rank that differs from most.
        rank: usize,
        /// A checksum of this rank's part. For `num_batches_tracked`, its value.
        found: Box<str>,
        /// The same of most ranks. Of equally frequent ones, that of the lowest rank.
        expected: Box<str>,
        /// The lowest rank that has the expected value.
        other: usize,
        /// Number of ranks that have the expected value.
        agreeing: usize,
    },
    /// An earlier call of this rank has begun and does not go on, as a future that is not polled.
    /// Calls exchange in the order in which they were made. Poll both, as `futures::join!` does, or
    /// drop the earlier one.
    #[error(
        "{at}: this rank's own earlier call, {earlier}, did not go on within {limit:?}, and the \
        group has failed; await calls in the order in which they begin, or all at once with \
        `futures::join!`"
    )]
    Blocked {
        /// The place of the reporting rank.
        at: String,
        /// The earlier call.
        earlier: String,
        /// Time for which this call waited for it.
        limit: Duration,
    },
    /// A rank sent bytes that are not a message of this protocol.
    #[error("{at}: the message of rank {rank} cannot be used: {message}")]
    Frame {
        /// The place of the reporting rank.
        at: String,
        /// That rank.
        rank: usize,
        /// The error in it.
        message: String,
    },
    /// The transport failed.
    #[error("{at}: the transport failed: {message}")]
    Transport {
        /// The place of the reporting rank.
        at: String,
        /// The transport's message.
        message: String,
    },
    /// Too few ranks came to go on after the group has failed.
    #[error(
        "{at}: rank(s) {present:?} came in time, which is too few to go on without rank(s) \
        {missing:?}; ask again, or begin again from a checkpoint"
    )]
    TooFew {
        /// The place of the reporting rank.
        at: String,
        /// The ranks that came.
        present: Vec<usize>,
        /// The other ranks that are not known to be gone.
        missing: Vec<usize>,
    },
    /// This rank came too late. Other ranks have gone on without it.
    #[error(
        "{at}: this rank came too late: rank(s) {survivors:?} have gone on without it; begin again \
        from their checkpoint"
    )]
    LeftBehind {
        /// The place of the reporting rank.
        at: String,
        /// The ranks that have gone on.
        survivors: Vec<usize>,
    },
    /// An exchange of the group has failed before; make a new group to go on.
    #[error(
        "{at}: the process group refuses work since an exchange failed; go on in a new group, such \
        as that of survivors, and move its layers there with set_group: {cause}"
    )]
    Poisoned {
        /// The refused work.
        at: String,
        /// The first failure.
        cause: String,
    },
}

/// The argument of a call that names a rank: one of its lists, or the root of a broadcast.
fn argument(call: &str, list: Option<usize>) -> String {
    match list {
        None => "from".to_owned(),
        Some(rank) if call == "subgroup" => format!("the list of rank {rank}"),
        Some(index) => format!("lists[{index}]"),
    }
}

/// The word before the value of a part of a state: counters are shown, vectors by a checksum.
fn kind(part: &str) -> &'static str {
    if part == "num_batches_tracked" { "" } else { "checksum " }
}

/// The advice to ranks that make different calls.
fn hint(what: &str) -> &'static str {
    match what {
        "layer" | "layer name" | "call" => {
            "; all ranks make the same calls in the same order, and one without a batch makes them \
             with an empty one (see ProcessGroup::uneven_steps)"
        }
        _ => "",
    }
}

/// A reason behind the same place, without it.
fn without_place<'r>(reason: &'r str, at: &str) -> &'r str {
    reason.strip_prefix(at).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(reason)
}

/// Some ranks, by the lowest of them and their number.
fn ranks(lowest: usize, count: usize) -> String {
    match count {
        0 | 1 => format!("rank {lowest}"),
        _ => format!("rank {lowest} and {} more", count - 1),
    }
}
