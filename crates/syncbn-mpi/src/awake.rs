//! A clock that stands still while this process is suspended. Deadlines count by it.
//!
//! A job that is suspended and resumed (SIGTSTP, a frozen container, a machine that sleeps) has not
//! been late. The clocks of the system go on in the meantime, so a thread looks at one of them at
//! short intervals: if two looks are far apart, nothing of this process ran between them.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks of the thread.
const INTERVAL: Duration = Duration::from_millis(100);
/// The most that the clock advances between two looks. A thread that is ready to run waits less for
/// a core, even on a machine with many times more work than cores.
const LONGEST: Duration = Duration::from_secs(1);

struct Clock {
    /// The last look.
    looked: Instant,
    /// The time of the clock at the last look.
    said: Duration,
    longest: Duration,
}

impl Clock {
    fn look(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.looked);
        self.looked = self.looked.max(now);
        self.said += passed.min(self.longest);
        self.said
    }
}

fn clock() -> &'static Mutex<Clock> {
    static CLOCK: OnceLock<Mutex<Clock>> = OnceLock::new();
    CLOCK.get_or_init(|| {
        // It ends with the process.
        let looking = thread::Builder::new().name("syncbn clock".to_owned()).spawn(|| {
            loop {
                thread::sleep(INTERVAL);
                now();
            }
        });
        // Without it, others look at any intervals: all time counts.
        let longest = if looking.is_ok() { LONGEST } else { Duration::MAX };
        Mutex::new(Clock { looked: Instant::now(), said: Duration::ZERO, longest })
    })
}

/// The time since the first call in which this process was not suspended.
pub(crate) fn now() -> Duration {
    clock().lock().unwrap_or_else(PoisonError::into_inner).look(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_gaps_count_as_a_second_and_short_ones_whole() {
        let began = Instant::now();
        let mut clock = Clock { looked: began, said: Duration::ZERO, longest: LONGEST };
        let at = |millis| began + Duration::from_millis(millis);
        assert_eq!(clock.look(at(100)), Duration::from_millis(100));
        assert_eq!(clock.look(at(1050)), Duration::from_millis(1050));
        // Suspended for six seconds.
        assert_eq!(clock.look(at(7050)), Duration::from_millis(2050));
        assert_eq!(clock.look(at(7150)), Duration::from_millis(2150));
        // Of two threads, the one that read the system's clock first looks later.
        assert_eq!(clock.look(at(7149)), Duration::from_millis(2150));
    }

    #[test]
    fn time_passes() {
        let before = now();
        thread::sleep(Duration::from_millis(20));
        assert!(now() >= before + Duration::from_millis(20));
    }
}
