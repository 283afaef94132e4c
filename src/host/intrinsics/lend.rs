//! Work that borrows from its caller, done by threads of a pool, whose tasks may outlive whatever
//! the caller borrows.
//!
//! Owns the promise that nobody is at the work any more when its lender goes on. The lender waits
//! for those who have begun, and for nobody else: who comes later finds nothing to do. It waits
//! asleep, and runs no task of the pool meanwhile.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Work<'a> = &'a (dyn Fn() + Sync);

/// Work that is lent by [`lend`].
pub(in crate::host) struct Lent {
    state: Mutex<State>,
    /// The last thread has left work that was taken back.
    left: Condvar,
}

struct State {
    /// `None` once it is taken back.
    work: Option<Work<'static>>,
    /// Threads that are at it.
    busy: usize,
    /// The first panic of one of them.
    panic: Option<Box<dyn Any + Send>>,
}

/// Lends `work` to whoever calls [`Lent::run`], until `body` ends.
///
/// Returns, or unwinds, once every thread that had begun has ended. A panic of one of them goes on
/// here, unless `body` panics itself.
pub(in crate::host) fn lend<R>(work: &(dyn Fn() + Sync), body: impl FnOnce(&Arc<Lent>) -> R) -> R {
    // SAFETY: nothing but the lifetime changes. The reference is kept in `State::work` and nowhere
    // else, in a type whose fields are private to this file. `run` alone copies it from there,
    // after counting its thread in under the same lock, and does not use it after counting it out.
    // `TakenBack` lies on this stack, where neither `body` nor anybody else can forget it: however
    // `body` ends, it empties `State::work` and then waits until no thread is counted, before this
    // function ends and what `work` borrows may end with it. The lock orders all that those threads
    // did before what comes next here.
    let work = unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) };
    let state = State { work: Some(work), busy: 0, panic: None };
    let lent = Arc::new(Lent { state: Mutex::new(state), left: Condvar::new() });
    let taken_back = TakenBack(&lent);
    let result = body(&lent);
    drop(taken_back);
    let panic = lent.state().panic.take();
    match panic {
        Some(panic) => resume_unwind(panic),
        None => result,
    }
}

/// Takes work back when it is dropped.
struct TakenBack<'l>(&'l Lent);

impl Drop for TakenBack<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.work = None;
        while state.busy > 0 {
            state = self.0.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Lent {
    /// Does the work on this thread, if it is still lent. Does not unwind where the work does.
    pub fn run(&self) {
        let Some(work) = self.begin() else { return };
        let result = catch_unwind(AssertUnwindSafe(work));
        let mut state = self.state();
        state.busy -= 1;
        if state.busy == 0 {
            self.left.notify_one();
        }
        if let Err(panic) = result {
            state.panic.get_or_insert(panic);
        }
    }

    /// Counts this thread in.
    fn begin(&self) -> Option<Work<'static>> {
        let mut state = self.state();
        let work = state.work?;
        state.busy += 1;
        Some(work)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one that a panic cannot cut in two.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
