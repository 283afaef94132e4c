//! Which threads compute: the caller's own, and those of a pool where there is enough to do.
//!
//! Owns the handing out of tasks. What a task computes does not depend on who runs it, nor in which order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{Scope, ThreadPool};

/// Bytes for which a thread is worth waking: about 20 µs of memory traffic of a core.
const BYTES_PER_THREAD: usize = 256 << 10;

/// Threads that compute for this crate now, callers included: another call takes no more helpers than the machine has
/// room for, so that several ranks in one process share the cores.
static WORKING: AtomicUsize = AtomicUsize::new(0);

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
    /// Those of rayon's global pool.
    pub const GLOBAL: Self = Self { pool: None };

    /// The threads of a pool of the caller's.
    pub fn of(pool: Arc<ThreadPool>) -> Self {
        Self { pool: Some(pool) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads()).max(1)
    }

    /// Runs `body` for every task: on this thread, and where the tasks touch enough memory on those of the pool.
    pub fn for_each<T: Send>(&self, bytes: usize, tasks: impl Iterator<Item = T> + Send, body: impl Fn(T) + Sync) {
        let count = if bytes < 2 * BYTES_PER_THREAD { 1 } else { self.count().min(bytes / BYTES_PER_THREAD) };
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
        match &self.pool {
            Some(pool) => pool.in_place_scope(|scope| share(scope, count - 1, &help, work)),
            None => rayon::in_place_scope(|scope| share(scope, count - 1, &help, work)),
        }
    }
}

/// Lets others help, and begins at once instead of waiting for them to wake up.
fn share<'scope>(scope: &Scope<'scope>, helpers: usize, help: &'scope (impl Fn() + Sync), work: impl Fn()) {
    for _ in 0..helpers {
        scope.spawn(|_| help());
    }
    work();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn every_task_runs_once_on_one_thread_and_on_several() {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let runs: Vec<AtomicU32> = (0..100).map(|_| AtomicU32::new(0)).collect();
            let count = |run: &AtomicU32| {
                run.fetch_add(1, Ordering::Relaxed);
            };
            Threads::of(Arc::new(pool)).for_each(64 << 20, runs.iter(), count);
            assert!(runs.iter().all(|run| run.load(Ordering::Relaxed) == 1), "{threads} thread(s)");
        }
    }

    #[test]
    fn little_work_stays_on_the_thread_of_the_caller() {
        let here = std::thread::current().id();
        Threads::GLOBAL.for_each(2 * BYTES_PER_THREAD - 1, 0..100, |_| assert_eq!(std::thread::current().id(), here));
    }
}
