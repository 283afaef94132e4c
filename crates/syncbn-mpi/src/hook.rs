//! The function that the program calls before a failed job ends, such as one that saves its state.

use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::awake;
use crate::watchdog::is_silent;

type Save = Box<dyn FnOnce(&str) + Send>;

/// The limit stays where the hook has been called.
static HOOK: Mutex<Option<(Duration, Option<Save>)>> = Mutex::new(None);

fn hook() -> MutexGuard<'static, Option<(Duration, Option<Save>)>> {
    HOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `save` called, once.
pub(crate) fn set(limit: Duration, save: impl FnOnce(&str) + Send + 'static) {
    *hook() = Some((limit, Some(Box::new(save))));
}

/// It is called no more: this rank is lost, or another MPI of the process begins.
pub(crate) fn forget() {
    *hook() = None;
}

/// How long ranks wait for those that save.
pub(crate) fn limit() -> Option<Duration> {
    hook().as_ref().map(|(limit, _)| *limit)
}

/// Calls the hook if it has not been called, and waits for it no longer than its limit: it may wait
/// for a lock that a stuck thread holds.
pub(crate) fn call(why: &str) {
    let Some((limit, Some(save))) = hook().as_mut().map(|(limit, save)| (*limit, save.take()))
    else {
        return;
    };
    let (done, waiting) = mpsc::channel();
    let why = why.to_owned();
    let saving = thread::Builder::new().name("syncbn save".to_owned()).spawn(move || {
        save(&why);
        let _ = done.send(());
    });
    if saving.is_ok() {
        // Nobody hears of a hook that did not end: the job ends next, with its own words.
        let _ = is_silent(&waiting, limit, awake::now);
    }
}
