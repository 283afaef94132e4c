//! A time limit for blocking calls of MPI. If it passes, the job ends.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::end;

/// Ends the job unless it is dropped in time.
pub(crate) struct Watchdog {
    /// Closed by the drop, which is what the thread waits for.
    _done: Sender<()>,
}

impl Watchdog {
    pub fn new(limit: Duration, what: &'static str) -> Self {
        let (done, waiting) = mpsc::channel::<()>();
        thread::spawn(move || {
            if waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                end::give_up(&format!("{what} did not end within {limit:?}"), end::EXIT_GIVEN_UP);
            }
        });
        Self { _done: done }
    }
}
