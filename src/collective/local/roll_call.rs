//! The choice of the ranks of a broken group that go on: those that request it before a deadline
//! passes, if they are enough.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either, FutureExt, select};

use super::answer::{Asked, Waiting, ask};
use super::{LocalGroup, LocalRank, Shared, State};
use crate::collective::{Collective, CollectiveError, Survivors};
use crate::timer::Timer;

type Answer = Result<(LocalRank, Vec<usize>), CollectiveError>;

/// The ranks that want to go on, until the decision.
#[derive(Debug, Default)]
pub(super) struct RollCall {
    present: BTreeMap<usize, Request>,
    /// Requests so far.
    requests: u64,
    /// Ranks whose places in the group were dropped: they live no more.
    departed: BTreeSet<usize>,
    decided: Option<Vec<usize>>,
}

/// A rank's wish to go on. The last one of a rank counts.
#[derive(Debug)]
struct Request {
    number: u64,
    asked: Asked<Answer>,
}

/// The place of a rank that will not take it.
#[must_use]
pub(super) struct Vacated {
    place: LocalRank,
    panicked: bool,
}

impl Vacated {
    /// Leaves the subgroup.
    pub fn leave(self) {
        let Self { place, panicked } = self;
        place.shared.change(|state| state.leave(place.rank, panicked));
    }
}

impl State {
    /// A rank wants to go on. Returns the number of its request and the wait for the answer.
    fn answer_roll(&mut self, rank: usize) -> Result<(u64, Waiting<Answer>), CollectiveError> {
        if let Some(survivors) = &self.roll_call.decided {
            return Err(CollectiveError::LeftBehind { survivors: survivors.clone() });
        }
        self.break_with(CollectiveError::Aborted { rank, message: Vec::new() });
        let number = self.roll_call.requests;
        self.roll_call.requests += 1;
        let (asked, waiting) = ask();
        if let Some(earlier) = self.roll_call.present.insert(rank, Request { number, asked }) {
            let message = format!("rank {rank} asked for the survivors twice at the same time");
            self.woken.extend(earlier.asked.give(Err(CollectiveError::Transport { message })));
        }
        self.close_roll(None);
        Ok((number, waiting))
    }

    /// A rank takes a request back.
    fn withdraw(&mut self, rank: usize, number: u64) {
        let present = &mut self.roll_call.present;
        if present.get(&rank).is_some_and(|request| request.number == number) {
            present.remove(&rank);
        }
    }

    /// A rank lives no more. Its request, which may outlive its place, ends with an error.
    pub(super) fn depart(&mut self, rank: usize) {
        self.roll_call.departed.insert(rank);
        if let Some(request) = self.roll_call.present.remove(&rank) {
            let panicked = self.gone[rank].unwrap_or_default();
            let error = CollectiveError::Left { rank, panicked };
            self.woken.extend(request.asked.give(Err(error)));
        }
        self.close_roll(None);
    }

    /// Takes the places in subgroups that ranks have not come to take before they were gone, or
    /// have aborted. They [leave](Vacated::leave) when the lock is released: that wakes the other
    /// ranks there.
    pub(super) fn vacate(&mut self) -> Vec<Vacated> {
        let departed = &self.roll_call.departed;
        let gone = &self.gone;
        let aborted = &self.aborted;
        let mut vacated = Vec::new();
        for ((_, members), places) in &mut self.subgroups {
            let is_free =
                |(_, member): &(_, &usize)| departed.contains(member) || aborted[**member];
            for (place, member) in places.iter_mut().zip(members).filter(is_free) {
                let panicked = gone[*member].unwrap_or_default();
                vacated.extend(place.take().map(|place| Vacated { place, panicked }));
            }
        }
        self.subgroups.retain(|_, places| places.iter().any(Option::is_some));
        vacated
    }

    /// Decides the survivors: all living ranks, once all of them have come. Once the deadline of a
    /// rank has passed: the ranks that have come, if they are more than half of the living ones, or
    /// half of them with the lowest rank. Otherwise that rank gives up.
    fn close_roll(&mut self, expired: Option<usize>) {
        let world_size = self.gone.len();
        let RollCall { present, decided, departed, .. } = &mut self.roll_call;
        let living: Vec<usize> = (0..world_size).filter(|rank| !departed.contains(rank)).collect();
        if decided.is_some() || present.is_empty() {
            return;
        }
        let ranks: Vec<usize> = present.keys().copied().collect();
        if ranks.len() < living.len() {
            let Some(expired) = expired else { return };
            let is_half = 2 * ranks.len() == living.len() && ranks.first() == living.first();
            if 2 * ranks.len() <= living.len() && !is_half {
                let missing =
                    living.iter().copied().filter(|rank| !present.contains_key(rank)).collect();
                if let Some(request) = present.remove(&expired) {
                    let error = CollectiveError::TooFew { present: ranks, missing };
                    self.woken.extend(request.asked.give(Err(error)));
                }
                return;
            }
        }
        *decided = Some(ranks.clone());
        let places = LocalGroup::ranks(ranks.len());
        for (request, place) in std::mem::take(present).into_values().zip(places) {
            // If a rank drops its future now, it leaves the new group with it.
            self.woken.extend(request.asked.give(Ok((place, ranks.clone()))));
        }
    }
}

/// A request that waits for its answer. Dropped before, it is withdrawn.
struct Asking {
    shared: Arc<Shared>,
    rank: usize,
    /// The request, until it is answered.
    number: Option<u64>,
    /// Dropped after the request is withdrawn: from then on no decision counts this rank, and no
    /// other thread drops its place.
    answer: Waiting<Answer>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.change(|state| state.withdraw(self.rank, number));
        }
    }
}

/// The group of the survivors, for one of them.
pub(super) fn survivors(
    rank: &LocalRank,
    deadline: Duration,
) -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
    let shared = rank.shared.clone();
    let rank = rank.rank;
    let requested = shared.change(|state| state.answer_roll(rank));
    let (number, answer) = match requested {
        Ok(requested) => requested,
        Err(error) => return async { Err(error) }.boxed(),
    };
    let mut asking = Asking { shared, rank, number: Some(number), answer };
    async move {
        let Asking { shared, number, answer, .. } = &mut asking;
        let answer = match select(&mut *answer, Timer::new(deadline)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), answer)) => {
                shared.change(|state| state.close_roll(Some(rank)));
                answer.await
            }
        };
        *number = None;
        let (place, ranks) = answer?;
        let transport: Arc<dyn Collective> = Arc::new(place);
        Ok(Survivors { transport, ranks })
    }
    .boxed()
}
