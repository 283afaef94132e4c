//! How long the machine lets a thread wait that is ready to run. That tells a rank that the
//! machine has held up from one that the library has.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

/// How often the watchdog wants to run.
const LOOK: Duration = Duration::from_millis(5);
/// How many of its looks are kept: far more than a scenario lasts.
const LOOKS: usize = 20_000;
/// A rank is held up several times on its way to an exchange and back: when its thread begins, when
/// its peers are woken, when it is. So a machine that delays one thread by a quarter of a deadline
/// can make a rank late that has done nothing wrong.
const PART: u32 = 4;
/// How often a scenario runs again that the machine has spoilt.
const AGAIN: usize = 3;

/// When the watchdog has run. Between two looks that are further apart than [`LOOK`] it waited for
/// a core.
static RAN: Mutex<VecDeque<Instant>> = Mutex::new(VecDeque::new());

/// The longest time that a thread waited for a core, from a moment on: the watchdog, or any thread
/// of the machine, where the kernel counts that. A watchdog that sleeps is given a core sooner than
/// a thread that has just run.
#[derive(Debug)]
struct Watch {
    began: Instant,
    /// Time in which some thread of the machine waited for a core, since it was started.
    stalled: Option<Duration>,
}

impl Watch {
    fn begin() -> Self {
        static WATCHDOG: Once = Once::new();
        WATCHDOG.call_once(|| {
            thread::spawn(|| {
                loop {
                    let mut ran = RAN.lock().expect("no panic");
                    ran.push_back(Instant::now());
                    if ran.len() > LOOKS {
                        ran.pop_front();
                    }
                    drop(ran);
                    thread::sleep(LOOK);
                }
            });
        });
        Self { began: Instant::now(), stalled: stalled() }
    }

    fn worst(&self) -> Duration {
        self.of_the_watchdog().max(self.of_a_full_machine())
    }

    /// The time in which threads waited for a core, if they did so for most of the time: else that
    /// is what a scenario's own threads make of it.
    fn of_a_full_machine(&self) -> Duration {
        let stalls = self.stalled.zip(stalled());
        let stalls = stalls.map(|(before, now)| now.saturating_sub(before)).unwrap_or_default();
        if 4 * stalls > 3 * self.began.elapsed() { stalls } else { Duration::ZERO }
    }

    fn of_the_watchdog(&self) -> Duration {
        let ran = RAN.lock().expect("no panic");
        let looks = ran.iter().copied().filter(|at| *at > self.began);
        worst(self.began, looks.chain([Instant::now()]))
    }
}

/// What Linux says of it: microseconds behind `total=` in the line `some`.
fn stalled() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    stalled_in(&text)
}

fn stalled_in(text: &str) -> Option<Duration> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let total = some.split_whitespace().find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

/// The longest delay of a thread that wanted to run every [`LOOK`], from what it managed.
fn worst(began: Instant, looks: impl Iterator<Item = Instant>) -> Duration {
    let mut last = began;
    let mut worst = Duration::ZERO;
    for look in looks {
        worst = worst.max(look.saturating_duration_since(last).saturating_sub(LOOK));
        last = look;
    }
    worst
}

/// Runs a scenario. If a rank was late without a fault, and the machine has measurably held threads
/// up meanwhile, that run says nothing of the library: it is counted, and made again. If the
/// machine was not at fault, the library was, and the reports stay.
pub fn run<R>(
    deadline: Duration,
    run: impl Fn() -> R,
    is_late: impl Fn(&R) -> bool,
    delayed: &AtomicU64,
) -> R {
    let measured = || {
        let watch = Watch::begin();
        let reports = run();
        (reports, watch.worst())
    };
    settle(deadline, measured, is_late, delayed)
}

fn settle<R>(
    deadline: Duration,
    run: impl Fn() -> (R, Duration),
    is_late: impl Fn(&R) -> bool,
    delayed: &AtomicU64,
) -> R {
    let (mut reports, mut worst) = run();
    for _ in 0..AGAIN {
        if !is_late(&reports) || worst < deadline / PART {
            break;
        }
        delayed.fetch_add(1, Ordering::Relaxed);
        (reports, worst) = run();
    }
    reports
}

#[test]
fn only_a_late_rank_on_a_machine_that_held_threads_up_is_run_again() {
    let deadline = Duration::from_millis(200);
    let runs = |late_ones: u64, worst: u64| {
        let made = AtomicU64::new(0);
        let delayed = AtomicU64::new(0);
        let run =
            || (made.fetch_add(1, Ordering::Relaxed) < late_ones, Duration::from_millis(worst));
        let is_late = settle(deadline, run, |is_late| *is_late, &delayed);
        (made.into_inner(), delayed.into_inner(), is_late)
    };
    // Nobody was late; and somebody was, on a machine that was not to blame.
    assert_eq!(runs(0, 1000), (1, 0, false));
    assert_eq!(runs(1, 49), (1, 0, true));
    // The machine was, and what is late each time stays so.
    assert_eq!(runs(1, 50), (2, 1, false));
    assert_eq!(runs(9, 1000), (4, 3, true));
}

#[test]
fn what_the_kernel_says_of_waiting_threads_is_read() {
    let text = "some avg10=0.38 avg60=0.40 avg300=0.21 total=1093\nfull avg10=0.00 total=7\n";
    assert_eq!(stalled_in(text), Some(Duration::from_micros(1093)));
    assert_eq!(stalled_in("full avg10=0.00 total=7\n"), None);
}

#[test]
fn the_watchdog_measures_how_long_it_waited_for_a_core() {
    let began = Instant::now();
    let at = |ms| began + Duration::from_millis(ms);
    assert_eq!(worst(began, [at(5), at(10), at(15)].into_iter()), Duration::ZERO);
    // Held up in the middle, and still when it is asked.
    assert_eq!(worst(began, [at(5), at(110), at(115)].into_iter()), Duration::from_millis(100));
    assert_eq!(worst(began, [at(5), at(300)].into_iter()), Duration::from_millis(290));
    let watch = Watch::begin();
    thread::sleep(Duration::from_millis(50));
    assert!(watch.of_the_watchdog() < watch.began.elapsed());
    // It has run meanwhile, on a machine that has not stood still for a minute.
    let ran = || RAN.lock().expect("no panic").iter().any(|at| *at > watch.began);
    let patience = Instant::now() + Duration::from_secs(60);
    while !ran() && Instant::now() < patience {
        thread::sleep(LOOK);
    }
    assert!(ran());
}
