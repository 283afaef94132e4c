//! The steps of a rank from its question to the group that it goes on in. Nothing here waits or
//! sends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use syncbn::collective::CollectiveError;

use super::roll::{Proposal, Roll};
use crate::notice::{Notice, transport};

/// How long a rank has to answer a proposal: who asks looks every millisecond, unless the machine
/// gives it no core.
const ANSWERS: Duration = Duration::from_secs(2);
/// How long the members of a decided group wait for each other. MPI cannot give up making it, so
/// one that comes later than that is lost to the others: longer than a rank that looks is without a
/// core.
const JOINING: Duration = Duration::from_secs(10);

/// Ranks that have left, and whether they panicked.
pub(crate) type Gone = BTreeMap<usize, bool>;
/// Notices to send, and to whom.
pub(super) type Notices = Vec<(usize, Notice)>;
/// The members of the new group, in ranks of the old one.
pub(super) type Outcome = Result<Vec<usize>, CollectiveError>;

/// One rank's part in the agreement.
pub(super) struct Agreement {
    own: usize,
    size: usize,
    deadline: Duration,
    /// By which MPI makes the group, if this rank is its lowest.
    tag: u64,
    /// This rank's proposal, and when it was made.
    proposed: Option<(Proposal, Duration)>,
    /// Since when this rank waits for the other members of the decided group.
    joins: Option<Duration>,
    /// Ranks that said that they are present, and no more since.
    silent: BTreeSet<usize>,
    /// The rank that another step is expected of, and since when.
    awaited: Option<(usize, Duration)>,
}

impl Agreement {
    pub fn new(own: usize, size: usize, deadline: Duration, tag: u64) -> Self {
        let silent = BTreeSet::new();
        Self { own, size, deadline, tag, proposed: None, joins: None, silent, awaited: None }
    }

    fn to_all(&self, notice: &Notice) -> Notices {
        self.to((0..self.size).collect::<Vec<_>>().as_slice(), notice)
    }

    /// To these, but not to itself.
    fn to(&self, ranks: &[usize], notice: &Notice) -> Notices {
        let others = ranks.iter().filter(|&&rank| rank != self.own);
        others.map(|&rank| (rank, notice.clone())).collect()
    }

    /// Whether this rank has said that it is about to make the decided group: others may be making
    /// it.
    pub fn joins(&self) -> bool {
        self.joins.is_some()
    }

    /// Goes as far as what was said allows. `waited` is the time since this rank has asked.
    pub fn advance(
        &mut self,
        roll: &mut Roll,
        gone: &Gone,
        waited: Duration,
    ) -> (Notices, Option<Outcome>) {
        let mut notices = self.answer(roll);
        if let Some((proposal, since)) = self.proposed.take()
            && roll.decided.is_none()
        {
            self.count(roll, gone, waited, proposal, since);
            if roll.decided.is_none() {
                return (notices, None);
            }
        }
        if let Some(decided) = roll.decided.clone() {
            let outcome = self.join(roll, gone, waited, decided, &mut notices);
            return (notices, outcome);
        }
        if let Some((proposer, _)) = roll.promised {
            let is_lost = gone.contains_key(&proposer) || !roll.asks(proposer);
            if is_lost || self.is_silent(proposer, waited) {
                roll.promised = None;
            }
            return (notices, None);
        }
        let outcome = self.decide(roll, gone, waited, &mut notices);
        (notices, outcome)
    }

    /// Answers the proposals of others.
    fn answer(&mut self, roll: &mut Roll) -> Notices {
        let mut notices = Vec::new();
        for Proposal { id, members } in std::mem::take(&mut roll.refused) {
            notices.extend(self.to(&members, &Notice::Answered { id, yes: false }));
        }
        while let Some(Proposal { id, members }) = roll.proposals.pop_front() {
            let (from, _) = id;
            let is_free =
                roll.decided.is_none() && roll.promised.is_none_or(|(rank, _)| rank == from);
            let yes = is_free && members.contains(&self.own);
            if yes {
                roll.promised = Some(id);
                roll.agreed.insert(id);
                self.awaited = None;
            }
            notices.push((from, Notice::Answered { id, yes }));
        }
        notices
    }

    /// Counts the answers to this rank's proposal. All must be a yes of a rank that takes part.
    fn count(
        &mut self,
        roll: &mut Roll,
        gone: &Gone,
        waited: Duration,
        proposal: Proposal,
        since: Duration,
    ) {
        let Proposal { id, members } = &proposal;
        let asked = || members.iter().copied().filter(|&member| member != self.own);
        let is_refused = asked().any(|member| {
            gone.contains_key(&member) || !roll.asks(member) || roll.has_taken_back(*id, member)
        });
        if !is_refused && asked().all(|member| roll.answer(*id, member) == Some(true)) {
            roll.decided = Some(proposal);
        } else if !is_refused && waited < since + ANSWERS {
            self.proposed = Some((proposal, since));
        } else {
            if !is_refused {
                let silent: Vec<usize> =
                    asked().filter(|&member| roll.answer(*id, member).is_none()).collect();
                self.silent.extend(silent);
            }
            roll.promised = None;
        }
    }

    /// Waits for the other members of the decided group: MPI makes it only if all of them come.
    fn join(
        &mut self,
        roll: &Roll,
        gone: &Gone,
        waited: Duration,
        decided: Proposal,
        notices: &mut Notices,
    ) -> Option<Outcome> {
        let Proposal { id, members } = decided.clone();
        if !members.contains(&self.own) {
            return Some(Err(CollectiveError::LeftBehind { survivors: members }));
        }
        if self.joins.is_none() {
            // All members tell all, before anything else: to a rank that hears later that one of
            // them has left the old group, that one is not dead.
            notices.extend(self.to_all(&Notice::Decided(decided)));
        }
        let others = || members.iter().copied().filter(|&member| member != self.own);
        for rank in others() {
            if let Some(&panicked) = gone.get(&rank) {
                return Some(Err(CollectiveError::Left { rank, panicked }));
            }
            if roll.has_taken_back(id, rank) {
                let why =
                    format!("rank {rank} had agreed to go on, and has taken it back: ask again");
                return Some(Err(transport(why)));
            }
        }
        // Only now: who hears it of all goes into MPI, and waits there for those that do not come.
        let since = match self.joins {
            Some(since) => since,
            None => {
                notices.extend(self.to(&members, &Notice::Joins { id, tag: self.tag }));
                self.joins = Some(waited);
                waited
            }
        };
        let ranks: Vec<usize> = others().filter(|&rank| roll.joined(id, rank).is_none()).collect();
        if ranks.is_empty() {
            return Some(Ok(members));
        }
        let is_late = waited >= since + JOINING;
        is_late.then_some(Err(CollectiveError::Late { ranks, deadline: JOINING }))
    }

    /// Whether a rank has let this one wait for too long. Then it counts as silent.
    fn is_silent(&mut self, rank: usize, waited: Duration) -> bool {
        match self.awaited {
            Some((awaited, since)) if awaited == rank => {
                let is_late = waited >= since + 2 * ANSWERS;
                if is_late {
                    self.silent.insert(rank);
                    self.awaited = None;
                }
                is_late
            }
            _ => {
                self.awaited = Some((rank, waited));
                false
            }
        }
    }

    /// Proposes a group, waits for who is to propose it, or gives up.
    fn decide(
        &mut self,
        roll: &mut Roll,
        gone: &Gone,
        waited: Duration,
        notices: &mut Notices,
    ) -> Option<Outcome> {
        let living: Vec<usize> = (0..self.size).filter(|rank| !gone.contains_key(rank)).collect();
        let is_present =
            |&rank: &usize| rank == self.own || roll.asks(rank) && !self.silent.contains(&rank);
        let present: Vec<usize> = living.iter().copied().filter(is_present).collect();
        if present.len() < living.len() {
            if waited < self.deadline {
                return None;
            }
            let is_half = 2 * present.len() == living.len() && present.first() == living.first();
            if 2 * present.len() <= living.len() && !is_half {
                let missing = living.into_iter().filter(|rank| !present.contains(rank)).collect();
                return Some(Err(CollectiveError::TooFew { present, missing }));
            }
        }
        let first = present.first().copied().unwrap_or(self.own);
        if first == self.own {
            let id = (self.own, roll.made);
            roll.made += 1;
            roll.promised = Some(id);
            roll.agreed.insert(id);
            let proposal = Proposal { id, members: present };
            notices.extend(self.to(&proposal.members, &Notice::Proposed(proposal.clone())));
            self.proposed = Some((proposal, waited));
        } else {
            self.is_silent(first, waited);
        }
        None
    }
}
