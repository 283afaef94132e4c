//! Waiting without blocking others: the futures of exchanges, and the intervals of their looks.
//!
//! A message between two processes of a machine takes about as long as a system call, so waiting
//! begins with looking again and again. With more processes than cores, the process that is waited
//! for needs the core, so every look yields it. Long waits sleep between looks.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FutureExt;
use futures_timer::Delay;
use syncbn::collective::CollectiveError;

use crate::awake;
use crate::group::{Group, State};

/// Looks in one poll, before other futures of the thread get their turn: some tens of microseconds.
const LOOKS: u32 = 32;
/// How long to look without sleeping: longer than the ranks of a step are usually apart.
pub(crate) const AWAKE: Duration = Duration::from_millis(2);
/// Shortest and longest sleep between two looks; In between, it is a fixed part of the time waited
/// so far. So sleeping extends a wait by that part at most.
const SLEEP: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(2)];
const SLEEP_PART: u32 = 16;

/// The steps of a rank in an exchange.
pub(crate) trait Course: Send + Unpin {
    type Output;

    /// Goes as far as the arrived messages allow. Returns the result when this rank's part is done.
    fn advance(&mut self, group: &Group, state: &mut State, round: u64) -> Option<Self::Output>;

    /// The deadline has passed: breaks the group, now or at a later call.
    fn expire(&mut self, group: &Group, state: &mut State, round: u64, deadline: Duration);
}

/// An exchange that this rank has begun. Dropped before its end, it breaks the group.
pub(crate) struct Exchange<C> {
    pub group: Arc<Group>,
    pub course: C,
    pub round: u64,
    pub deadline: Duration,
    /// By the clock of `awake`.
    pub began: Duration,
    sleep: Option<Delay>,
    over: bool,
}

impl<C: Course> Exchange<C> {
    pub fn new(group: Arc<Group>, course: C, round: u64, deadline: Duration) -> Self {
        Self { group, course, round, deadline, began: awake::now(), sleep: None, over: false }
    }

    /// Sends the messages that need no answer of another rank.
    pub fn begin(&mut self, state: &mut State) {
        // A result, of a group of one, is there again at the first look.
        let _ = self.course.advance(&self.group, state, self.round);
    }

    fn waited(&self) -> Duration {
        awake::now().saturating_sub(self.began)
    }

    /// One look.
    fn look(&mut self) -> Option<Result<C::Output, CollectiveError>> {
        let waited = self.waited();
        let Self { group, course, round, .. } = self;
        let mut state = group.lock();
        group.progress(&mut state);
        // A result that is there counts, whatever has been said since.
        if let Some(output) = course.advance(group, &mut state, *round) {
            state.end(*round);
            return Some(Ok(output));
        }
        group.check_gone(&mut state, *round);
        if state.broken.is_none() && waited >= self.deadline {
            course.expire(group, &mut state, *round, self.deadline);
        }
        let error = state.broken.clone()?;
        // Whoever gets the error may call MPI no more for long.
        if !state.is_seen_off() {
            return None;
        }
        state.end(*round);
        Some(Err(error))
    }
}

impl<C: Course> Future for Exchange<C> {
    type Output = Result<C::Output, CollectiveError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let looks = if self.sleep.is_some() { 1 } else { LOOKS };
            for _ in 0..looks {
                if let Some(result) = self.look() {
                    self.over = true;
                    return Poll::Ready(result);
                }
                if looks > 1 {
                    std::thread::yield_now();
                }
            }
            let waited = self.waited();
            if waited < AWAKE {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let [shortest, longest] = SLEEP;
            // Not beyond the deadline, and not for nothing when it is near.
            let left = self.deadline.saturating_sub(waited).max(shortest);
            let sleep = self.sleep.get_or_insert_with(|| Delay::new(shortest));
            if sleep.poll_unpin(context).is_pending() {
                return Poll::Pending;
            }
            sleep.reset((waited / SLEEP_PART).clamp(shortest, longest).min(left));
        }
    }
}

impl<C> Drop for Exchange<C> {
    fn drop(&mut self) {
        if !self.over {
            let mut state = self.group.lock();
            let rank = self.group.comm.rank;
            let panicked = std::thread::panicking();
            state.end(self.round);
            self.group.break_with(&mut state, &CollectiveError::Left { rank, panicked });
            drop(state);
            self.group.see_off();
        }
    }
}
