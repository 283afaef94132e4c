//! Which threads compute: the caller's own, and those of a pool where there is enough to do.
//!
//! Owns the handing out of tasks, from a queue behind a lock: work is memory-bound, so that threads
//! share the bandwidth and the next task goes to the next free thread. The result of a task depends
//! neither on its thread nor on the order.
//!
//! The pool is somebody else's. Its threads may be in tasks that never end, or that wait for this
//! very call: so the caller can do everything itself, waits for threads that have begun a task of
//! its own and for no others, and never waits inside rayon, which would run another task of the
//! pool on the caller's stack meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPool;

use super::intrinsics::{Lent, lend};

/// Bytes for which a thread is worth waking: about 20 µs of memory traffic of a core.
const BYTES_PER_THREAD: usize = 256 << 10;

/// Threads that compute for this crate now, callers included: another call takes no more helpers
/// than the machine has room for, so that several ranks in one process share the cores.
static WORKING: AtomicUsize = AtomicUsize::new(0);

/// Helpers that one thread has asked for and that have not come yet: a pool whose threads stay in
/// other tasks keeps so many small jobs, and not some of every call.
const MOST_ASKED: usize = 1024;

thread_local! {
    /// Held once by every helper that this thread has asked for and that has not come yet.
    static ASKED: Arc<()> = Arc::default();
}

/// Holders of [`ASKED`] that are no helpers: the thread, and who counts them.
const OTHER_HOLDERS: usize = 2;

/// The pool of a host device: the caller's, or rayon's global one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Threads {
    pool: Option<Arc<ThreadPool>>,
}

impl PartialEq for Threads {
    /// Whichever threads compute, the memory is the same: handles of the host are equal.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Counts a thread while it computes.
struct Working;

impl Working {
    fn begin() -> Self {
        WORKING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        WORKING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Threads {
    /// Those of the host, where it computes, as it does here.
    pub fn any() -> Option<Self> {
        Some(Self::default())
    }

    /// The threads of a pool of the caller's.
    pub fn of(pool: Arc<ThreadPool>) -> Self {
        Self { pool: Some(pool) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pool
            .as_ref()
            .map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads())
            .max(1)
    }

    /// Runs `body` for every task: on this thread, and where the tasks touch enough memory on those
    /// of the pool.
    pub fn for_each<T: Send>(
        &self,
        bytes: usize,
        tasks: impl Iterator<Item = T> + Send,
        body: impl Fn(T) + Sync,
    ) {
        let count = if bytes < 2 * BYTES_PER_THREAD {
            1
        } else {
            self.count().min(bytes / BYTES_PER_THREAD)
        };
        if count == 1 {
            return tasks.for_each(body);
        }
        let queue = Mutex::new(tasks);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            let _working = Working::begin();
            while let Some(task) = next() {
                body(task);
            }
        };
        let help = || {
            if WORKING.load(Ordering::Relaxed) < count {
                work();
            }
        };
        // Others are asked first; the caller begins at once instead of waiting for them to wake up.
        lend(&help, |lent| {
            self.ask(count - 1, lent);
            work();
        });
    }

    /// Asks so many threads of the pool for help, and waits for none of them.
    fn ask(&self, helpers: usize, lent: &Arc<Lent>) {
        // A thread that is about to end does without.
        let Ok(asked) = ASKED.try_with(Arc::clone) else { return };
        let already = Arc::strong_count(&asked) - OTHER_HOLDERS;
        for _ in 0..helpers.min(MOST_ASKED.saturating_sub(already)) {
            let asked = asked.clone();
            let lent = lent.clone();
            let help = move || {
                drop(asked);
                lent.run();
            };
            match &self.pool {
                Some(pool) => pool.spawn(help),
                None => rayon::spawn(help),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicU32};
    use std::sync::mpsc::channel;
    use std::thread::{current, yield_now};
    use std::time::{Duration, Instant};

    use super::*;

    /// Bytes that are worth any number of threads.
    const MANY_BYTES: usize = 64 << 20;
    /// Threads of a pool of which some help, whatever the other tests of this file do meanwhile.
    const MANY_THREADS: usize = 16;
    /// Far longer than a loaded machine delays a thread.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn pool(threads: usize) -> Arc<ThreadPool> {
        Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool"))
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let since = Instant::now();
        while !condition() {
            assert!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}");
            yield_now();
        }
    }

    /// Puts so many threads of the pool into tasks that end when the gate opens.
    fn block(pool: &ThreadPool, threads: usize, gate: &Arc<Mutex<()>>) {
        let (begin, begun) = channel();
        for _ in 0..threads {
            let gate = gate.clone();
            let begin = begin.clone();
            pool.spawn(move || {
                begin.send(()).expect("the test waits");
                drop(gate.lock());
            });
        }
        (0..threads).for_each(|_| begun.recv_timeout(PATIENCE).expect("a thread in a task"));
    }

    /// Hands out two tasks, one to the caller and one to a helper, each of which begins when the
    /// other has. `body` gets whether it is the helper's. No more than two threads work, so that
    /// tests beside this one do not keep the helper away.
    fn with_a_helper(pool: Arc<ThreadPool>, body: impl Fn(bool) + Sync) {
        let caller = current().id();
        let begun = AtomicU32::new(0);
        let mut given = [false; 2];
        let tasks = std::iter::from_fn(move || {
            let is_helper = current().id() != caller;
            let given = &mut given[usize::from(is_helper)];
            (!std::mem::replace(given, true)).then_some(is_helper)
        });
        Threads::of(pool).for_each(MANY_BYTES, tasks, |is_helper| {
            begun.fetch_add(1, Ordering::SeqCst);
            wait_until(|| begun.load(Ordering::SeqCst) == 2);
            body(is_helper);
        });
    }

    #[test]
    fn every_task_runs_once_on_one_thread_and_on_several() {
        for threads in [1, 3] {
            let runs: Vec<AtomicU32> = (0..100).map(|_| AtomicU32::new(0)).collect();
            let count = |run: &AtomicU32| {
                run.fetch_add(1, Ordering::Relaxed);
            };
            Threads::of(pool(threads)).for_each(MANY_BYTES, runs.iter(), count);
            assert!(runs.iter().all(|run| run.load(Ordering::Relaxed) == 1), "{threads} thread(s)");
        }
    }

    #[test]
    fn little_work_stays_on_the_thread_of_the_caller() {
        let here = current().id();
        Threads::default()
            .for_each(2 * BYTES_PER_THREAD - 1, 0..100, |_| assert_eq!(current().id(), here));
    }

    #[test]
    fn a_panic_of_a_helper_is_the_caller_s_and_leaves_the_pool_as_it_was() {
        let pool = pool(MANY_THREADS);
        let call = || with_a_helper(pool.clone(), |is_helper| assert!(!is_helper, "a helper's"));
        let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("the panic");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"a helper's"));
        with_a_helper(pool, |_| {});
    }

    #[test]
    fn a_caller_that_panics_waits_for_its_helpers() {
        let ended = AtomicBool::new(false);
        let call = || {
            with_a_helper(pool(MANY_THREADS), |is_helper| {
                assert!(is_helper, "the caller's");
                std::thread::sleep(Duration::from_millis(50));
                ended.store(true, Ordering::SeqCst);
            });
        };
        let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("the panic");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the caller's"));
        assert!(ended.load(Ordering::SeqCst));
    }

    #[test]
    fn a_caller_that_waits_runs_no_other_task_of_its_pool() {
        let pool = pool(MANY_THREADS);
        // All but the caller, who is a thread of the pool, and one who helps.
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().expect("the gate");
        block(&pool, MANY_THREADS - 2, &gate);
        let (end, ended) = channel();
        let inner = pool.clone();
        pool.spawn(move || {
            let caller = current().id();
            let ran_here = Arc::new(AtomicBool::new(false));
            with_a_helper(inner.clone(), |is_helper| {
                if is_helper {
                    let ran_here = ran_here.clone();
                    inner.spawn(move || ran_here.store(current().id() == caller, Ordering::SeqCst));
                    // The caller waits meanwhile, and would find that task.
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            end.send(ran_here.load(Ordering::SeqCst)).expect("the test waits");
        });
        let ran_here = ended.recv_timeout(PATIENCE).expect("an end");
        drop(closed);
        assert!(!ran_here, "another task ran on the thread of a caller who waits");
    }

    #[test]
    #[cfg_attr(miri, ignore = "a thousand calls take it minutes")]
    fn a_pool_whose_threads_never_come_keeps_a_bounded_number_of_calls_for_help() {
        let asked = || Arc::strong_count(&ASKED.with(Arc::clone)) - OTHER_HOLDERS;
        let pool = pool(MANY_THREADS);
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().expect("the gate");
        block(&pool, MANY_THREADS, &gate);
        let (report, reports) = channel();
        std::thread::spawn(move || {
            let threads = Threads::of(pool);
            (0..MOST_ASKED).for_each(|_| threads.for_each(MANY_BYTES, 0..2, |_| {}));
            report.send(asked()).expect("the test waits");
            wait_until(|| asked() == 0);
            report.send(asked()).expect("the test waits");
        });
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(MOST_ASKED));
        drop(closed);
        assert_eq!(reports.recv_timeout(PATIENCE), Ok(0));
    }
}
