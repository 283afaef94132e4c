//! Who goes on after a failure. MPI has no agreement that works where a rank is gone, so the ranks
//! agree by notices.
//!
//! Every living rank says that it is present. The lowest of them proposes a group: all ranks that
//! are not known to be gone, or, once its deadline has passed, those that are present, if they are
//! enough. A rank promises to go with one proposal at a time. Once all have promised, the group is
//! decided, and every rank is told. So no rank is in two groups, and of two parts of a group one at
//! most goes on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures_timer::Delay;
use syncbn::collective::{CollectiveError, Survivors};

use crate::group::Group;
use crate::notice::{Notice, transport};
use crate::rank::MpiRank;
use crate::{awake, end};

/// How long a rank has to answer a proposal: who asks looks every millisecond, unless the machine
/// gives it no core.
const ANSWERS: Duration = Duration::from_secs(2);
/// How often to look.
const LOOK: Duration = Duration::from_millis(1);

/// What other ranks have said.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    present: BTreeSet<usize>,
    proposals: VecDeque<(usize, Vec<usize>)>,
    /// The rank whose proposal this one goes with.
    promised: Option<usize>,
    /// Answers to this rank's proposal.
    answers: BTreeMap<usize, bool>,
    decided: Option<Vec<usize>>,
}

impl Roll {
    /// A notice of the agreement has arrived.
    pub fn take_in(&mut self, from: usize, notice: Notice) {
        match notice {
            Notice::Present => drop(self.present.insert(from)),
            Notice::Withdrawn => drop(self.present.remove(&from)),
            Notice::Proposed { members } => self.proposals.push_back((from, members)),
            Notice::Answered { yes } => drop(self.answers.insert(from, yes)),
            Notice::Decided { members } => drop(self.decided.get_or_insert(members)),
            _ => {}
        }
    }
}

/// Notices to send, and to whom.
type Notices = Vec<(usize, Notice)>;
/// The members of the new group, in ranks of the old one.
type Outcome = Result<Vec<usize>, CollectiveError>;

/// One rank's part in the agreement. It neither waits nor sends.
struct Agreement {
    own: usize,
    size: usize,
    deadline: Duration,
    /// This rank's proposal, and when it was made.
    proposed: Option<(Vec<usize>, Duration)>,
    /// Ranks that said that they are present, and no more since.
    silent: BTreeSet<usize>,
    /// The rank that another step is expected of, and since when.
    awaited: Option<(usize, Duration)>,
}

impl Agreement {
    fn new(own: usize, size: usize, deadline: Duration) -> Self {
        let silent = BTreeSet::new();
        Self { own, size, deadline, proposed: None, silent, awaited: None }
    }

    fn to_all(&self, notice: &Notice) -> Notices {
        let others = (0..self.size).filter(|&rank| rank != self.own);
        others.map(|rank| (rank, notice.clone())).collect()
    }

    /// Goes as far as what was said allows. `waited` is the time since this rank has asked.
    fn advance(
        &mut self,
        roll: &mut Roll,
        gone: &BTreeSet<usize>,
        waited: Duration,
    ) -> (Notices, Option<Outcome>) {
        if let Some(members) = roll.decided.clone() {
            let is_member = members.contains(&self.own);
            let behind = CollectiveError::LeftBehind { survivors: members.clone() };
            return (Vec::new(), Some(if is_member { Ok(members) } else { Err(behind) }));
        }
        let mut notices = self.answer(roll);
        if let Some((members, since)) = self.proposed.take() {
            let asked = || members.iter().filter(|&&member| member != self.own);
            if asked().all(|member| roll.answers.get(member) == Some(&true)) {
                roll.decided = Some(members.clone());
                notices.extend(self.to_all(&Notice::Decided { members: members.clone() }));
                return (notices, Some(Ok(members)));
            }
            let is_refused = roll.answers.values().any(|yes| !yes);
            if !is_refused && waited < since + ANSWERS {
                self.proposed = Some((members, since));
                return (notices, None);
            }
            self.silent.extend(asked().filter(|member| !roll.answers.contains_key(member)));
            roll.answers.clear();
            roll.promised = None;
            return (notices, None);
        }
        if let Some(proposer) = roll.promised {
            if self.is_silent(proposer, waited) {
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
        while let Some((from, members)) = roll.proposals.pop_front() {
            let yes = members.contains(&self.own) && roll.promised.is_none_or(|rank| rank == from);
            if yes {
                roll.promised = Some(from);
                self.awaited = None;
            }
            notices.push((from, Notice::Answered { yes }));
        }
        notices
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
        gone: &BTreeSet<usize>,
        waited: Duration,
        notices: &mut Notices,
    ) -> Option<Outcome> {
        let living: Vec<usize> = (0..self.size).filter(|rank| !gone.contains(rank)).collect();
        let is_present = |rank: &usize| {
            *rank == self.own || roll.present.contains(rank) && !self.silent.contains(rank)
        };
        let present: Vec<usize> = living.iter().copied().filter(is_present).collect();
        if present.len() < living.len() {
            if waited < self.deadline {
                return None;
            }
            let is_half = 2 * present.len() == living.len() && present.first() == living.first();
            if 2 * present.len() <= living.len() && !is_half {
                let missing = living.into_iter().filter(|rank| !present.contains(rank)).collect();
                notices.extend(self.to_all(&Notice::Withdrawn));
                return Some(Err(CollectiveError::TooFew { present, missing }));
            }
        }
        let first = present.first().copied().unwrap_or(self.own);
        if first == self.own {
            roll.promised = Some(self.own);
            roll.answers.clear();
            let others = present.iter().filter(|&&rank| rank != self.own);
            let proposal = Notice::Proposed { members: present.clone() };
            notices.extend(others.map(|&rank| (rank, proposal.clone())));
            self.proposed = Some((present, waited));
        } else {
            self.is_silent(first, waited);
        }
        None
    }
}

/// A rank that asks who goes on. Dropped before it knows, it takes its question back.
struct Asking {
    group: Arc<Group>,
    asks: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.asks {
            self.group.notify_all(&mut self.group.lock(), &Notice::Withdrawn);
        }
    }
}

/// The group of the survivors, for one of them.
pub(crate) fn survivors(
    group: Arc<Group>,
    deadline: Duration,
) -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
    let (own, size) = (group.comm.rank, group.comm.size);
    {
        let mut state = group.lock();
        group.break_with(&mut state, &CollectiveError::Aborted { rank: own, message: Vec::new() });
        if let Some(survivors) = state.roll.decided.clone() {
            return async { Err(CollectiveError::LeftBehind { survivors }) }.boxed();
        }
        group.notify_all(&mut state, &Notice::Present);
    }
    let mut asking = Asking { group, asks: true };
    async move {
        let began = awake::now();
        let mut agreement = Agreement::new(own, size, deadline);
        let outcome = loop {
            let group = &asking.group;
            let ended = {
                let mut state = group.lock();
                group.progress(&mut state);
                let (waited, gone) = (awake::now().saturating_sub(began), state.gone());
                let (notices, ended) = agreement.advance(&mut state.roll, &gone, waited);
                for (to, notice) in notices {
                    group.notify(&mut state, [to].into_iter(), &notice);
                }
                ended
            };
            if let Some(outcome) = ended {
                break outcome;
            }
            Delay::new(LOOK).await;
        };
        asking.asks = false;
        let ranks = outcome?;
        let made = end::go_on(&asking.group, &ranks);
        let made = made.map_err(|failure| transport(failure.to_string()))?;
        Ok(Survivors { transport: Arc::new(MpiRank::new(made)), ranks })
    }
    .boxed()
}

#[cfg(test)]
mod tests;
