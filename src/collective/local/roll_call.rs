//! The choice of the ranks of a broken group that go on: those that request it before a deadline
//! passes, if they are enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, FutureExt, select};

use super::{LocalGroup, LocalRank, Shared, State};
use crate::collective::{Collective, CollectiveError, Survivors};
use crate::timer::Timer;

type Answer = Result<(LocalRank, Vec<usize>), CollectiveError>;

/// The ranks that want to go on, until the decision.
#[derive(Debug, Default)]
pub(super) struct RollCall {
    present: BTreeMap<usize, oneshot::Sender<Answer>>,
    decided: Option<Vec<usize>>,
}

impl State {
    /// A rank wants to go on.
    fn answer_roll(&mut self, rank: usize) -> Result<oneshot::Receiver<Answer>, CollectiveError> {
        if let Some(survivors) = &self.roll_call.decided {
            return Err(CollectiveError::LeftBehind { survivors: survivors.clone() });
        }
        self.break_with(CollectiveError::Aborted { rank, message: Vec::new() });
        // A rank that left by dropping a future is present again.
        self.gone[rank] = None;
        let (sender, receiver) = oneshot::channel();
        self.roll_call.present.insert(rank, sender);
        self.close_roll(None);
        Ok(receiver)
    }

    /// A rank withdraws.
    pub(super) fn withdraw(&mut self, rank: usize) {
        self.roll_call.present.remove(&rank);
        self.close_roll(None);
    }

    /// Decides the survivors: all living ranks, once all of them have come. Once the deadline of a
    /// rank has passed: the ranks that have come, if they are more than half of the living ones, or
    /// half of them with the lowest rank. Otherwise that rank gives up.
    fn close_roll(&mut self, expired: Option<usize>) {
        let living: Vec<usize> =
            (0..self.gone.len()).filter(|&rank| self.gone[rank].is_none()).collect();
        let RollCall { present, decided } = &mut self.roll_call;
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
                if let Some(waiting) = present.remove(&expired) {
                    let error = CollectiveError::TooFew { present: ranks, missing };
                    let _ = waiting.send(Err(error));
                }
                return;
            }
        }
        *decided = Some(ranks.clone());
        let places = LocalGroup::ranks(ranks.len());
        for (waiting, place) in std::mem::take(present).into_values().zip(places) {
            // A rank that has dropped its future leaves the new group at once.
            let _ = waiting.send(Ok((place, ranks.clone())));
        }
    }
}

/// Withdraws the rank if the future is dropped.
struct Withdraw {
    shared: Arc<Shared>,
    rank: usize,
    is_armed: bool,
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        if self.is_armed {
            self.shared.lock().withdraw(self.rank);
        }
    }
}

/// The group of the survivors, for one of them.
pub(super) fn survivors(
    rank: &LocalRank,
    deadline: Duration,
) -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
    let (shared, rank) = (rank.shared.clone(), rank.rank);
    let receiver = shared.lock().answer_roll(rank);
    let guard = Withdraw { shared, rank, is_armed: receiver.is_ok() };
    async move {
        let mut guard = guard;
        let answer = match select(receiver?, Timer::new(deadline)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), receiver)) => {
                guard.shared.lock().close_roll(Some(rank));
                receiver.await
            }
        };
        guard.is_armed = false;
        // The sender is dropped only if the same rank has asked once more.
        let twice = || CollectiveError::Transport {
            message: format!("rank {rank} asked for the survivors twice at the same time"),
        };
        let (place, ranks) = answer.map_err(|_| twice())??;
        let transport: Arc<dyn Collective> = Arc::new(place);
        Ok(Survivors { transport, ranks })
    }
    .boxed()
}
