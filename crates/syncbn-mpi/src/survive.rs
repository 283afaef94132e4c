//! The agreement of the survivors of a failure. MPI has none that works after a rank is gone, so
//! the ranks agree by notices:
//!
//! 1. Every living rank reports that it is present.
//! 2. The lowest of them proposes a group: all ranks that are not known to be gone, or, once its
//!    deadline has passed, those that are present, if they are enough.
//! 3. A rank promises to join one proposal at a time. Once all have promised, the group is decided.
//! 4. Every member notifies all ranks of the decision. A rank with this notice does not take a
//!    member that leaves the old group for a lost one.
//! 5. Every member announces that it is about to make the group, and waits for the others to do the
//!    same. A rank that withdraws its request, leaves, or joins another proposal makes no group. A
//!    rank that knows this of another member does not announce.
//!
//! So no rank is in two groups, and of two parts of a group at most one goes on.

mod agreement;
mod roll;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures_timer::Delay;
use syncbn::collective::{CollectiveError, Survivors};

use crate::group::{Group, State};
use crate::notice::{Notice, transport};
use crate::rank::MpiRank;
use crate::{awake, end, tag};
pub(crate) use agreement::Gone;
use agreement::{Agreement, Outcome};
pub(crate) use roll::{Id, Proposal, Roll};

/// How often to look.
const LOOK: Duration = Duration::from_millis(1);

/// A rank's request for the survivors.
struct Question {
    group: Arc<Group>,
    agreement: Agreement,
    /// By which MPI makes the group, if this rank is its lowest.
    tag: u64,
    /// By the clock of `awake`.
    began: Duration,
}

impl Question {
    /// One look.
    fn look(&mut self) -> Option<Outcome> {
        let mut state = self.group.lock();
        self.group.catch_up(&mut state);
        let waited = awake::now().saturating_sub(self.began);
        let gone = state.gone();
        let (notices, outcome) = self.agreement.advance(&mut state.roll, &gone, waited);
        for (to, notice) in notices {
            self.group.notify(&mut state, [to].into_iter(), &notice);
        }
        if let Some(Err(_)) = outcome {
            self.take_back(&mut state);
        }
        outcome
    }

    fn take_back(&self, state: &mut State) {
        state.roll.withdraw(self.group.comm.rank);
        self.group.notify_all(state, &Notice::Withdrawn);
    }

    fn go_on(&self, ranks: Vec<usize>) -> Result<Survivors, CollectiveError> {
        let tag = self.group.lock().roll.tag().unwrap_or(self.tag);
        let made = end::go_on(&self.group, &ranks, tag);
        let made = made.map_err(|failure| transport(failure.to_string()))?;
        Ok(Survivors { transport: Arc::new(MpiRank::new(made)), ranks })
    }
}

/// A rank that asks for the survivors. If it is dropped before the answer, it withdraws its
/// request. If the others may be making the group with it, it makes it too, and leaves it.
struct Asking(Option<Question>);

impl Drop for Asking {
    fn drop(&mut self) {
        let Some(mut question) = self.0.take() else { return };
        if !question.agreement.joins() || thread::panicking() {
            question.take_back(&mut question.group.lock());
            return;
        }
        // Without a thread it does not come, and the others end by their limit.
        let _ = thread::Builder::new().name("syncbn survivors".to_owned()).spawn(move || {
            let outcome = loop {
                if let Some(outcome) = question.look() {
                    break outcome;
                }
                thread::sleep(LOOK);
            };
            drop(outcome.and_then(|ranks| question.go_on(ranks)));
        });
    }
}

/// The group of the survivors, for one of them.
pub(crate) fn survivors(
    group: Arc<Group>,
    deadline: Duration,
) -> BoxFuture<'static, Result<Survivors, CollectiveError>> {
    let own = group.comm.rank;
    let size = group.comm.size;
    {
        let mut state = group.lock();
        group.break_with(&mut state, &CollectiveError::Aborted { rank: own, message: Vec::new() });
        if let Some(decided) = state.roll.decided.clone() {
            let survivors = decided.members;
            return async { Err(CollectiveError::LeftBehind { survivors }) }.boxed();
        }
        group.notify_all(&mut state, &Notice::Present);
    }
    let tag = tag::next(&group.job);
    let agreement = Agreement::new(own, size, deadline, tag);
    let mut asking = Asking(Some(Question { group, agreement, tag, began: awake::now() }));
    async move {
        let again = || transport("the question who goes on has ended".to_owned());
        let outcome = loop {
            if let Some(outcome) = asking.0.as_mut().ok_or_else(again)?.look() {
                break outcome;
            }
            Delay::new(LOOK).await;
        };
        let question = asking.0.take().ok_or_else(again)?;
        question.go_on(outcome?)
    }
    .boxed()
}

#[cfg(test)]
mod tests;
