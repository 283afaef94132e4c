//! Timers for every deadline, including those beyond the range of a platform's timers.

use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures_timer::Delay;
use web_time::Instant;

/// The longest single wait. A browser's timer counts milliseconds in an `i32`, and fires at once
/// beyond.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// The time since the first call.
pub(crate) fn now() -> Duration {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

/// Ends when a duration has passed. If it is dropped before, it does nothing.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Time of its end. `None` means never, because no clock counts so far.
    ends: Option<Instant>,
    delay: Delay,
}

impl Timer {
    pub fn new(duration: Duration) -> Self {
        let ends = Instant::now().checked_add(duration);
        Self { ends, delay: Delay::new(duration.min(LONGEST)) }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.delay.poll_unpin(context));
            let left =
                self.ends.map_or(LONGEST, |ends| ends.saturating_duration_since(Instant::now()));
            // A browser's timer may fire a fraction of a millisecond early.
            if left < Duration::from_millis(1) {
                return Poll::Ready(());
            }
            self.delay.reset(left.min(LONGEST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_ends_after_its_duration_and_not_before() {
        let started = Instant::now();
        pollster::block_on(Timer::new(Duration::from_millis(20)));
        assert!(started.elapsed() >= Duration::from_millis(19), "{:?}", started.elapsed());
    }

    #[test]
    fn the_longest_duration_is_no_panic_and_does_not_end() {
        let mut timer = Timer::new(Duration::MAX);
        assert_eq!(pollster::block_on(futures::future::poll_immediate(&mut timer)), None);
    }
}
