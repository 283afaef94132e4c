//! Owns the ranks as training loops have them: a thread for each, with its place in a process
//! group. All of them end, whatever happens in one of them, and what fails in one fails the whole.
//! No panic goes further than this file.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use syncbn::collective::LocalRank;
use syncbn::{ProcessGroup, collective::LocalGroup};

/// How long a rank waits for its peers: longer than a step of any case takes on a busy machine,
/// short beside the patience of whoever waits for the runner.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Runs `work` on every rank of a new process group; what it returns, in rank order.
///
/// # Errors
/// What every failed rank says, panics included.
pub fn run<T: Send>(
    world: usize,
    work: impl Fn(usize, ProcessGroup) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let work = &work;
    let results: Vec<Result<T, String>> = thread::scope(|scope| {
        let spawn = |rank: LocalRank| {
            let group = ProcessGroup::new(rank).with_deadline(DEADLINE);
            let builder = thread::Builder::new().name(format!("rank {}", group.rank()));
            // A rank that gets no thread is dropped here, and so leaves its peers.
            builder.spawn_scoped(scope, move || work(group.rank(), group))
        };
        let threads: Vec<_> = LocalGroup::ranks(world).into_iter().map(spawn).collect();
        let ends = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|payload| Err(panicked(&*payload))),
            Err(error) => Err(format!("has no thread: {error}")),
        });
        ends.collect()
    });
    let failed = results
        .iter()
        .enumerate()
        .filter_map(|(rank, result)| Some((rank, result.as_ref().err()?)));
    let failures: Vec<String> = failed.map(|(rank, what)| format!("rank {rank}: {what}")).collect();
    if failures.is_empty() {
        Ok(results.into_iter().flatten().collect())
    } else {
        Err(failures.join("; "))
    }
}

/// Runs `work` here; a panic is an error of its own. What it left half done is not used again, but
/// for devices.
pub fn contained<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(panicked(&*payload)))
}

fn panicked(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}
