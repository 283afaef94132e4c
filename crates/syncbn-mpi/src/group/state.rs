//! What a rank knows of the others of its group: messages that have arrived, messages under way,
//! ranks that are gone, and the failure that broke the group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use syncbn::collective::CollectiveError;

use crate::inbox::Under;
use crate::meeting::Meeting;
use crate::notice::{Tag, transport};
use crate::raw::{Failure, Receiving, Sending};
use crate::survive::{Gone, Roll};
use crate::{awake, live};

/// How long a rank that breaks a group looks after its notices. Others look every two milliseconds.
const SEEN_OFF: Duration = Duration::from_millis(100);

/// What a rank knows of the others.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Exchanges that this rank has begun.
    pub rounds: u64,
    pub broken: Option<CollectiveError>,
    /// Until when the notices of that are looked after, where this rank broke it and nobody does
    /// that yet.
    pub(super) see_off_until: Option<Instant>,
    /// Ranks that have left, after how many exchanges, and whether they panicked.
    pub(super) gone: BTreeMap<usize, (u64, bool)>,
    /// Messages that wait to be taken.
    pub(super) arrived: HashMap<(usize, Tag), Arc<[u8]>>,
    pub(super) arriving: Vec<Under<Receiving>>,
    /// Messages that MPI still reads, of an exchange or of none.
    pub(super) outgoing: Vec<Outgoing>,
    /// Exchanges under way, by their number in a tag, and whether they all-reduce along the tree.
    pub(super) under_way: BTreeMap<u16, bool>,
    /// Ranks that answered the roll call of an exchange.
    pub(super) here: BTreeSet<(u64, usize)>,
    /// When the last exchange was over.
    pub(super) ended: Option<Duration>,
    /// The exchange of the last roll call to this rank, and the time of that call.
    pub called: Option<(u64, Duration)>,
    /// Notices about groups that ranks are about to make.
    pub meeting: Meeting,
    /// How long the last exchange may wait.
    pub deadline: Option<Duration>,
    /// Notices about the survivors of a failure.
    pub roll: Roll,
}

/// A message that MPI still reads.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Its exchange; `None` for a notice.
    pub round: Option<u64>,
    pub to: usize,
    pub sending: Sending,
}

impl State {
    /// The group is broken; of several reasons the first counts.
    pub(super) fn set_broken(&mut self, error: CollectiveError) {
        live::fail(self.broken.get_or_insert(error));
    }

    /// Notices of a rank that may call MPI no more are looked after, by
    /// [`Group::see_off`](super::Group::see_off).
    pub fn look_after_notices(&mut self) {
        self.see_off_until = Some(Instant::now() + SEEN_OFF);
    }

    /// Whether MPI still sends notices.
    pub(super) fn has_notices(&self) -> bool {
        self.outgoing.iter().any(|outgoing| outgoing.round.is_none())
    }

    /// Whether the notices of a rank that broke the group have been looked after: MPI has sent
    /// them, their time is over, or somebody else does it.
    pub fn is_seen_off(&self) -> bool {
        !self.has_notices() || self.see_off_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Forgets messages that MPI has sent, and those that it cannot send. Returns the first
    /// failure.
    pub(super) fn sweep(&mut self) -> Option<Failure> {
        let mut failed = None;
        self.outgoing.retain_mut(|outgoing| match outgoing.sending.is_done() {
            Ok(done) => !done,
            Err(failure) => {
                failed.get_or_insert(failure);
                false
            }
        });
        failed
    }

    /// Ranks that have left, and whether they panicked.
    pub fn gone(&self) -> Gone {
        self.gone.iter().map(|(&rank, &(_, panicked))| (rank, panicked)).collect()
    }

    /// A message that has arrived, once.
    pub fn take(&mut self, from: usize, tag: Tag) -> Option<Arc<[u8]>> {
        self.arrived.remove(&(from, tag))
    }

    /// Ranks that MPI has not taken all messages of an exchange to.
    pub fn unsent(&self, round: u64) -> impl Iterator<Item = usize> {
        self.outgoing
            .iter()
            .filter(move |outgoing| outgoing.round == Some(round))
            .map(|outgoing| outgoing.to)
    }

    /// An exchange is over, well or not.
    pub fn end(&mut self, round: u64) {
        self.ended = Some(awake::now());
        self.under_way.remove(&Tag::round(round));
        self.here.retain(|(called, _)| *called != round);
    }

    /// Whether a rank has answered a roll call.
    pub fn is_here(&self, round: u64, rank: usize) -> bool {
        self.here.contains(&(round, rank))
    }

    /// The first of these ranks to leave, if any has left, and whether it panicked.
    pub fn first_left(&self, ranks: &[usize]) -> Option<(usize, bool)> {
        let left = ranks.iter().filter_map(|&rank| Some((rank, *self.gone.get(&rank)?)));
        left.min_by_key(|(_, (rounds, _))| *rounds).map(|(rank, (_, panicked))| (rank, panicked))
    }

    /// The error if a message shows that its sender all-reduces while this rank gathers, or the
    /// reverse. Neither would get the other's message then.
    pub(super) fn different_exchange(
        &self,
        from: usize,
        tag: Tag,
        rank: usize,
    ) -> Option<CollectiveError> {
        let (round, merges) = match tag {
            Tag::Flat(round) => (round, false),
            Tag::Up(round) | Tag::Down(round) => (round, true),
            Tag::Notice => return None,
        };
        let own = *self.under_way.get(&round)?;
        (own != merges).then(|| {
            let (merging, gathering) = if merges { (from, rank) } else { (rank, from) };
            let what = "all-reduces statistics, gradients or sums";
            transport(format!("rank {merging} {what}; rank {gathering} does something else"))
        })
    }
}
