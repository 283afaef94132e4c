//! A time limit for blocking calls of MPI. If it passes, the job ends.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::{awake, end};

/// How often to look at the clock, which stands still while the process is suspended.
const LOOK: Duration = Duration::from_millis(100);

/// Ends the job unless it is dropped in time.
pub(crate) struct Watchdog {
    /// Closed by the drop, which is what the thread waits for.
    _done: Sender<()>,
}

impl Watchdog {
    pub fn new(limit: Duration, what: &'static str) -> Self {
        let (done, waiting) = mpsc::channel::<()>();
        thread::spawn(move || {
            if is_silent(&waiting, limit, awake::now) {
                end::give_up(&format!("{what} did not end within {limit:?}"), end::EXIT_GIVEN_UP);
            }
        });
        Self { _done: done }
    }
}

/// Whether neither a message nor the end of its senders comes within the limit, by a clock of its
/// own.
pub(crate) fn is_silent<T>(
    waiting: &Receiver<T>,
    limit: Duration,
    clock: impl Fn() -> Duration,
) -> bool {
    let began = clock();
    loop {
        let left = limit.saturating_sub(clock().saturating_sub(began));
        if left.is_zero() {
            return true;
        }
        match waiting.recv_timeout(left.min(LOOK)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_watchdog_waits_by_a_clock_that_may_stand_still() {
        let (done, waiting) = mpsc::channel::<()>();
        // Ten looks in which no time passes, and then a minute each.
        let looks = AtomicU64::new(0);
        let clock =
            || Duration::from_secs(60 * looks.fetch_add(1, Ordering::Relaxed).saturating_sub(10));
        assert!(is_silent(&waiting, Duration::from_secs(30), clock));
        assert_eq!(looks.load(Ordering::Relaxed), 12);
        let clock = || Duration::from_secs(60 * looks.fetch_add(1, Ordering::Relaxed));
        drop(done);
        assert!(!is_silent(&waiting, Duration::from_secs(3600), clock));
    }
}
