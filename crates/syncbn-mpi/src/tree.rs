//! The all-reduce: messages merge up the canonical tree over ranks to rank 0,
//! and down again. Twice log₂ n steps, and about two messages for each rank.
//!
//! For b = 1, 2, 4 … up to the lowest bit of r, rank r merges its values of the ranks r … r + b − 1
//! with those of the next b ranks, which rank r + b sends. Then it sends the result to the rank
//! without that bit, and waits for the global result. These are the nodes of the tree, so the
//! result has the same bits as any other way along it.

use std::sync::Arc;
use std::time::Duration;

use syncbn::collective::{CollectiveError, Part, ReduceOp};

use crate::awake;
use crate::group::{Group, State};
use crate::notice::{Notice, Tag, transport};
use crate::wait::Course;

/// How long ranks have to answer a roll call: who waits in an exchange looks at least every two
/// milliseconds, unless the machine gives it no core.
const ANSWERS: Duration = Duration::from_secs(1);

/// The progress of this rank.
pub(crate) struct Tree {
    op: ReduceOp,
    merged: Option<Arc<[u8]>>,
    /// The bit of the rank to wait for next.
    bit: usize,
    stage: Stage,
    /// When the answers to this rank's roll call must be there.
    answers_until: Option<Duration>,
}

enum Stage {
    /// Waits for those below.
    Up,
    /// Waits for the result.
    Down,
    /// Has the result, and waits until MPI has sent it on.
    Sent,
}

impl Tree {
    pub fn new(message: Vec<u8>, op: ReduceOp) -> Self {
        Self { op, merged: Some(message.into()), bit: 1, stage: Stage::Up, answers_until: None }
    }

    /// Merges with what has come from below, in the order of the tree; whether that is all.
    fn up(&mut self, group: &Group, state: &mut State, round: u64) -> Option<()> {
        let rank = group.comm.rank;
        let size = group.comm.size;
        while self.bit < size && rank & self.bit == 0 {
            let from = rank + self.bit;
            if from < size {
                let theirs = state.take(from, Tag::Up(Tag::round(round)))?;
                let own = self.merged.as_deref().unwrap_or_default();
                let merged =
                    (self.op)(Part { rank, bytes: own }, Part { rank: from, bytes: &theirs });
                self.merged = Some(merged.into());
            }
            self.bit *= 2;
        }
        Some(())
    }

    /// Sends the result to those below, the farthest first, whose way goes on from there.
    fn down(&self, group: &Group, state: &mut State, round: u64, result: &Arc<[u8]>) {
        let rank = group.comm.rank;
        let size = group.comm.size;
        let mut bit = self.bit / 2;
        while bit > 0 {
            if rank + bit < size {
                group.send(state, round, rank + bit, Tag::Down(Tag::round(round)), result.clone());
            }
            bit /= 2;
        }
    }
}

impl Course for Tree {
    type Output = Arc<[u8]>;

    fn advance(&mut self, group: &Group, state: &mut State, round: u64) -> Option<Arc<[u8]>> {
        let rank = group.comm.rank;
        // The rank above: without the lowest bit. Rank 0 has none.
        let above = rank & rank.wrapping_sub(1);
        if let Stage::Up = self.stage {
            self.up(group, state, round)?;
            if rank > 0 {
                let merged = self.merged.take().unwrap_or_default();
                group.send(state, round, above, Tag::Up(Tag::round(round)), merged);
                self.stage = Stage::Down;
            } else if let Some(result) = &self.merged {
                self.down(group, state, round, result);
                self.stage = Stage::Sent;
            }
        }
        if let Stage::Down = self.stage {
            let result = state.take(above, Tag::Down(Tag::round(round)))?;
            self.down(group, state, round, &result);
            self.merged = Some(result);
            self.stage = Stage::Sent;
        }
        // As of `flat`.
        if state.broken.is_none() && state.unsent(round).next().is_some() {
            return None;
        }
        self.merged.clone()
    }

    /// This rank knows only that those next to it have not come, and they may wait for others: it
    /// calls the roll. Ranks that hear another's call wait for that verdict first.
    fn expire(&mut self, group: &Group, state: &mut State, round: u64, deadline: Duration) {
        let now = awake::now();
        match self.answers_until {
            None => {
                let called =
                    state.called.filter(|(called, at)| *called == round && now < *at + 2 * ANSWERS);
                if called.is_none() {
                    group.notify_all(state, &Notice::RollCall { round });
                    self.answers_until = Some(now + ANSWERS);
                }
            }
            Some(until) if now >= until => {
                let ranks: Vec<usize> =
                    group.peers().filter(|&peer| !state.is_here(round, peer)).collect();
                let error = if ranks.is_empty() {
                    transport(format!(
                        "all ranks came, and yet the exchange did not end within {deadline:?}"
                    ))
                } else {
                    CollectiveError::Late { ranks, deadline }
                };
                group.break_with(state, &error);
            }
            Some(_) => {}
        }
    }
}
