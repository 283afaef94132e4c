//! A rank that ends early: by a panic, or by leaving its program. MPI itself would let the others
//! wait for ever, or end them without a word; here they are notified first.

use std::panic;
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use crate::job::LOOK;
use crate::{end, hook, live, raw};

/// Exit status of a panic, as Rust's own.
const EXIT_PANIC: i32 = 101;
/// Time for the other ranks to report the notice. Printing an error takes them milliseconds.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Adds the end of the job to a panic, and to the end of the program where MPI has not ended
/// before.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            previous(info);
            // Before MPI has begun and after it has ended, a panic is the program's own affair.
            if raw::is_alive() {
                lose(true, "this rank panicked", EXIT_PANIC);
            }
        }));
        raw::at_exit(leaves);
    });
}

/// Called by C's `exit`.
extern "C" fn leaves() {
    if raw::is_alive() && !end::is_given_up() {
        end::exits();
        lose(false, "this rank left its program before the end of MPI", end::EXIT_GIVEN_UP);
    }
}

/// Of a thread that unwinds past the end of MPI, because the program has set another hook.
pub(crate) fn unwinds() -> ! {
    lose(true, "this rank panicked", EXIT_PANIC)
}

fn lose(panicked: bool, why: &str, status: i32) -> ! {
    live::notify_lost(panicked);
    // A rank that is lost does not save.
    let limit = hook::limit();
    hook::forget();
    // Where the others go on, nothing ends for them.
    if let Some(limit) = limit.filter(|_| !end::recovers()) {
        end::wait_for_others(limit);
    }
    let began = Instant::now();
    while began.elapsed() < LAST_WORDS {
        // A long notice goes on its way only while this rank looks.
        live::look();
        thread::sleep(LOOK);
    }
    end::give_up(why, status)
}
