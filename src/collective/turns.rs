//! The order of a rank's exchanges. It is the order of the rank's calls, whichever call is ready
//! first.
//!
//! A call takes its [`Turn`] when it is made. Its exchange begins when those of all calls before it
//! are over. So a rank has one exchange under way at a time. Ranks that make their calls in the
//! same order meet, even if calls wait for their devices.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem::take;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::future::{Either, select};

use super::operation::Operation;
use super::{Place, ProcessGroup};
use crate::error::ExchangeError;
use crate::timer::Timer;

/// The calls of a rank whose exchanges are not over, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: VecDeque<Open>,
    /// Counts changes that make a call look again: another call is first, or the first has gone on.
    changes: u64,
    /// The group refuses work, so no call waits any more.
    closed: bool,
    waiting: Vec<Waker>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    at: Place,
    limit: Duration,
}

/// The first of the calls, on which another one waits.
#[derive(Debug)]
pub(super) struct First {
    pub at: Place,
    /// The time that it may take to go on.
    pub limit: Duration,
    /// The value of `changes` when the call looked.
    pub changes: u64,
}

impl Turns {
    /// The turn of a call that is made now. `limit` is the time until its exchange must begin.
    pub fn take(self: &Arc<Self>, at: Place, limit: Duration) -> Turn {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.open.push_back(Open { number, at, limit });
        Turn { turns: self.clone(), number }
    }

    /// Lets all calls look again, for the last time.
    pub fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// Changes the state that others wait for, and wakes them.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.changes += 1;
        let waiting = take(&mut state.waiting);
        // A waker may run anything: not while the lock is held.
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProcessGroup {
    /// The turn of a call that is made now: calls exchange in the order in which they take it.
    /// Until its exchange begins, the call may take `patience`, the time of its devices, plus the
    /// group's deadline.
    pub(crate) fn turn(&self, at: Place, patience: Duration) -> Turn {
        self.shared.turns.take(at, patience.saturating_add(self.deadline()))
    }
}

impl Operation {
    /// Waits until the exchanges of this rank's earlier calls are over. An earlier call that is not
    /// polled any more ends this call and the group, because no other check would notice it.
    pub async fn come(&self) -> Result<(), ExchangeError> {
        let Self { group, turn, at, .. } = self;
        group.check(at)?;
        if group.world_size() == 1 {
            return Ok(());
        }
        while let Some(first) = turn.first() {
            let began = group.transport.now();
            let mut left = first.limit;
            let mut changed = pin!(turn.changed(first.changes));
            while let Either::Right(_) = select(changed.as_mut(), Timer::new(left)).await {
                // A timer counts the time in which the process was suspended.
                let passed = group.transport.now().saturating_sub(began);
                left = first.limit.saturating_sub(passed);
                if !left.is_zero() {
                    continue;
                }
                let earlier = first.at.to_string();
                let limit = first.limit;
                let reason =
                    format!("its own earlier call, {earlier}, did not go on within {limit:?}");
                let error = ExchangeError::Blocked { at: at.to_string(), earlier, limit };
                group.fail_with(error.clone(), self.header.clone(), at, &reason);
                return Err(error);
            }
            group.check(at)?;
        }
        Ok(())
    }
}

/// A call's place in the order of exchanges, until its exchange is over or it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    number: u64,
}

impl Turn {
    /// The first of the calls before this one; `None` when it is this one's turn.
    pub(super) fn first(&self) -> Option<First> {
        let state = self.turns.lock();
        let first = state.open.front().filter(|first| first.number < self.number)?;
        Some(First { at: first.at.clone(), limit: first.limit, changes: state.changes })
    }

    /// Waits until the first call may be another one, or has gone on.
    pub(super) async fn changed(&self, since: u64) {
        poll_fn(|context| {
            let mut state = self.turns.lock();
            if state.closed || state.changes != since {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// The call goes on. From now it may take `limit`.
    pub(super) fn go_on(&self, limit: Duration) {
        self.turns.change(|state| {
            if let Some(place) = state.open.iter_mut().find(|place| place.number == self.number) {
                place.limit = limit;
            }
        });
    }

    /// The call's exchange is over.
    pub(crate) fn pass(&self) {
        let is_mine = |place: &Open| place.number == self.number;
        let is_open = self.turns.lock().open.iter().any(is_mine);
        if is_open {
            self.turns.change(|state| state.open.retain(|place| !is_mine(place)));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pass();
    }
}
