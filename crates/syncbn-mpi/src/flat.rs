//! The all-gather: every rank sends its message to every other. One step, n − 1 messages for each
//! rank.

use std::sync::Arc;
use std::time::Duration;

use syncbn::collective::{CollectiveError, Gathered};

use crate::group::{Group, State};
use crate::notice::Tag;
use crate::wait::Course;

/// The messages so far.
pub(crate) struct Flat {
    messages: Vec<Option<Arc<[u8]>>>,
}

impl Flat {
    /// Sends this rank's message on its way to all others.
    pub fn begin(group: &Group, state: &mut State, round: u64, message: Vec<u8>) -> Self {
        let message: Arc<[u8]> = message.into();
        let tag = Tag::Flat(Tag::round(round));
        for peer in group.peers() {
            group.send(state, round, peer, tag, message.clone());
        }
        let mut messages = vec![None; group.comm.size];
        messages[group.comm.rank] = Some(message);
        Self { messages }
    }
}

impl Course for Flat {
    type Output = Gathered;

    fn advance(&mut self, _: &Group, state: &mut State, round: u64) -> Option<Gathered> {
        let tag = Tag::Flat(Tag::round(round));
        for (rank, message) in
            self.messages.iter_mut().enumerate().filter(|(_, message)| message.is_none())
        {
            *message = state.take(rank, tag);
        }
        // A long message proceeds only while its sender polls MPI. If the group is broken, no rank
        // waits for it.
        if state.broken.is_none() && state.unsent(round).next().is_some() {
            return None;
        }
        self.messages.iter().cloned().collect()
    }

    fn expire(&mut self, group: &Group, state: &mut State, round: u64, deadline: Duration) {
        let missing = |rank: &usize| {
            self.messages[*rank].is_none() || state.unsent(round).any(|to| to == *rank)
        };
        let ranks = group.peers().filter(missing).collect();
        group.break_with(state, &CollectiveError::Late { ranks, deadline });
    }
}
