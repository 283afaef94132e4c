//! The notices of the ranks of a broken group about its survivors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::notice::Notice;

/// A proposal: the rank that makes it, and how many that rank has made before in this group.
pub(crate) type Id = (usize, u64);

/// A proposal of the ranks that go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub id: Id,
    pub members: Vec<usize>,
}

/// The notices of other ranks, and the promises of this one.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    /// Ranks that have asked for the survivors; false for those that take part no more.
    asks: BTreeMap<usize, bool>,
    pub(super) proposals: VecDeque<Proposal>,
    /// The proposal that this rank goes with.
    pub(super) promised: Option<Id>,
    /// All that it has said yes to since it asked. Once it takes its question back, they are void:
    /// it joins none of them.
    pub(super) agreed: BTreeSet<Id>,
    void: BTreeSet<Id>,
    /// Decided proposals that are void, whose members must be notified.
    pub(super) refused: Vec<Proposal>,
    /// Answers of ranks to proposals. A no is final.
    answers: BTreeMap<(Id, usize), bool>,
    pub decided: Option<Proposal>,
    /// Ranks that are about to make the group of a proposal, and the tags that they have said.
    joined: BTreeMap<(Id, usize), u64>,
    /// Proposals of this rank so far.
    pub(super) made: u64,
}

impl Roll {
    /// A notice of the agreement has arrived.
    pub fn take_in(&mut self, from: usize, notice: Notice) {
        match notice {
            Notice::Present => drop(self.asks.insert(from, true)),
            Notice::Withdrawn => {
                self.asks.insert(from, false);
                let answers = self.answers.iter_mut().filter(|((_, rank), _)| *rank == from);
                answers.for_each(|(_, yes)| *yes = false);
            }
            Notice::Proposed(proposal) if proposal.id.0 == from => {
                self.proposals.push_back(proposal);
            }
            Notice::Answered { id, yes } => {
                *self.answers.entry((id, from)).or_insert(true) &= yes;
            }
            Notice::Decided(proposal) => self.take_decision(from, proposal),
            Notice::Joins { id, tag } => drop(self.joined.insert((id, from), tag)),
            _ => {}
        }
    }

    fn take_decision(&mut self, from: usize, proposal: Proposal) {
        if self.void.contains(&proposal.id) {
            self.refused.push(proposal);
            return;
        }
        match &self.decided {
            None => self.decided = Some(proposal),
            // It goes with another one.
            Some(decided) if decided.id != proposal.id && proposal.members.contains(&from) => {
                self.answers.insert((decided.id, from), false);
            }
            Some(_) => {}
        }
    }

    /// Whether a rank asks for the survivors.
    pub(super) fn asks(&self, rank: usize) -> bool {
        self.asks.get(&rank) == Some(&true)
    }

    /// The answer of a rank to a proposal.
    pub(super) fn answer(&self, id: Id, rank: usize) -> Option<bool> {
        self.answers.get(&(id, rank)).copied()
    }

    /// Whether a rank has said that it does not go with a proposal, or takes part no more.
    pub(super) fn has_taken_back(&self, id: Id, rank: usize) -> bool {
        self.answer(id, rank) == Some(false) || self.asks.get(&rank) == Some(&false)
    }

    /// The tag of a rank that is about to make the group of a proposal.
    pub(super) fn joined(&self, id: Id, rank: usize) -> Option<u64> {
        self.joined.get(&(id, rank)).copied()
    }

    /// The tag by which the decided group is made: that of its lowest member, if another one.
    pub(super) fn tag(&self) -> Option<u64> {
        let Proposal { id, members } = self.decided.as_ref()?;
        self.joined(*id, *members.first()?)
    }

    /// This rank takes its question back. It joins no group that it has agreed to, and may ask
    /// again.
    pub fn withdraw(&mut self, own: usize) {
        self.promised = None;
        self.void.append(&mut self.agreed);
        self.decided.take_if(|decided| decided.members.contains(&own));
        self.answers.clear();
        self.joined.clear();
    }
}
