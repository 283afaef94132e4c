//! The end of the job: of all processes if one is lost, or of those that have gone on.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::group::Group;
use crate::job::LOOK;
use crate::rank::SPLIT_DEADLINE;
use crate::raw::{self, Comm, Failure};
use crate::tag::LEFT_BEHIND;
use crate::watchdog::Watchdog;
use crate::{awake, hook, live};

/// Exit status of a job that was given up: one that programs and shells use for nothing else.
pub(crate) const EXIT_GIVEN_UP: i32 = 87;

/// This process's rank of the job, for messages; −1 before there is one.
static RANK: AtomicI32 = AtomicI32::new(-1);
/// Where ranks wait for each other at the end, and which of the job's these are.
type End = (Arc<Comm>, Arc<[usize]>);
static END: Mutex<Option<End>> = Mutex::new(None);
static GIVEN_UP: AtomicBool = AtomicBool::new(false);
/// Whether C's `exit` is under way, which a program must not call again.
static EXITS: AtomicBool = AtomicBool::new(false);
/// Whether ranks have gone on without others.
static LOST: AtomicBool = AtomicBool::new(false);
/// Whether they have gone on without this one.
static LEFT: AtomicBool = AtomicBool::new(false);

/// MPI has begun; the ranks wait for each other at the end on this communicator.
pub(crate) fn begin(end: Arc<Comm>) {
    RANK.store(i32::try_from(end.rank).unwrap_or(i32::MAX), Ordering::Relaxed);
    let ranks = (0..end.size).collect();
    *END.lock().unwrap_or_else(PoisonError::into_inner) = Some((end, ranks));
}

/// The communicator of the ranks that wait for each other at the end.
pub(crate) fn comm() -> Option<Arc<Comm>> {
    END.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(end, _)| end.clone())
}

/// MPI has ended; whether ranks have gone on without others.
pub(crate) fn forget() -> bool {
    *END.lock().unwrap_or_else(PoisonError::into_inner) = None;
    LEFT.store(false, Ordering::Relaxed);
    LOST.swap(false, Ordering::Relaxed)
}

/// Whether the launcher lets the other processes go on when one is gone: `mpirun --enable-recovery`
/// of Open MPI says so in the environment.
pub(crate) fn recovers() -> bool {
    std::env::var("OMPI_MCA_orte_enable_recovery").is_ok_and(|value| value == "1")
}

/// From now on the ranks are not all of the job's.
fn lose_ranks() {
    LOST.store(true, Ordering::Relaxed);
}

/// Whether others have gone on without this rank: they wait for it at no end.
pub(crate) fn is_left_behind(end: &Comm) -> Result<bool, Failure> {
    if !LEFT.load(Ordering::Relaxed) && end.receive(Some(LEFT_BEHIND))?.is_some() {
        LEFT.store(true, Ordering::Relaxed);
        lose_ranks();
    }
    Ok(LEFT.load(Ordering::Relaxed))
}

/// The group of these ranks of another one, which has failed. They wait for each other at the end
/// of the job, if the old group was of all that did. A rank that was left behind keeps the end at
/// which it was: the others wait at another one, and not here.
pub(crate) fn go_on(group: &Group, ranks: &[usize], tag: u64) -> Result<Arc<Group>, Failure> {
    let _limit = Watchdog::new(SPLIT_DEADLINE, "the making of a group of the survivors");
    let comm = group.comm.subset(ranks, &group.job, tag)?;
    // By all of them, whatever each has gone on in before.
    let next = Arc::new(comm.copy(SPLIT_DEADLINE)?);
    let survivors: Arc<[usize]> = group.job_ranks(ranks);
    let mut end = END.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((old, waiting)) = &*end
        && follows(waiting, &group.ranks, &survivors)
        && !is_left_behind(old).unwrap_or(false)
    {
        // A rank that lives, and has come to its end, waits for nobody.
        for (index, _) in left_behind(waiting, &survivors) {
            drop(old.send(index, LEFT_BEHIND, Arc::default()));
        }
        *end = Some((next, survivors.clone()));
    }
    drop(end);
    lose_ranks();
    live::forget_failure();
    Ok(live::keep(Group::new(comm, group.job.clone(), survivors, group.tree_from)))
}

/// Whether the survivors of a group are those that wait for each other at the end: the group was of
/// all that did.
fn follows(waiting: &[usize], group: &[usize], survivors: &[usize]) -> bool {
    waiting.iter().all(|rank| group.contains(rank))
        && survivors.iter().all(|rank| waiting.contains(rank))
}

/// Those that wait at the end and have not survived, behind their places there.
fn left_behind<'a>(
    waiting: &'a [usize],
    survivors: &'a [usize],
) -> impl Iterator<Item = (usize, usize)> + 'a {
    let waiting = waiting.iter().copied().enumerate();
    waiting.filter(move |(_, rank)| !survivors.contains(rank))
}

/// Of a rank that is lost: waits until all others have come to the end, where they come when they
/// have saved, or until the limit has passed.
pub(crate) fn wait_for_others(limit: Duration) {
    // The lock is held for a moment only, but maybe by the thread that panics.
    let end = END.try_lock().ok().and_then(|end| end.as_ref().map(|(end, _)| end.clone()));
    let Some(end) = end else { return };
    let began = awake::now();
    let Ok(mut barrier) = end.barrier() else { return };
    while matches!(barrier.is_done(), Ok(false)) && awake::now().saturating_sub(began) < limit {
        thread::sleep(LOOK);
    }
}

/// Ends every process of the job, with a message. Where the others can go on, it ends this one.
pub(crate) fn give_up(why: &str, status: i32) -> ! {
    // Of a rank that ends the job without having seen a failure. One that is lost does not save.
    if status == EXIT_GIVEN_UP {
        hook::call(why);
    }
    GIVEN_UP.store(true, Ordering::Relaxed);
    // There is no other place to report a failure of this.
    // In one piece: MPI's own words about the end come between others.
    let what = if recovers() { "ending this rank" } else { "ending the job" };
    let last_words = format!("rank {}: {why}; {what}\n", RANK.load(Ordering::Relaxed));
    let _ = io::stderr().write_all(last_words.as_bytes());
    if !recovers() {
        raw::abort(status);
    }
    // Where MPI does not do it, or has ended: the launcher ends the job when a process ends so.
    if EXITS.load(Ordering::Relaxed) {
        raw::exit_at_once(status);
    }
    std::process::exit(status)
}

/// C's `exit` is under way.
pub(crate) fn exits() {
    EXITS.store(true, Ordering::Relaxed);
}

/// Whether this process has begun to end the job.
pub(crate) fn is_given_up() -> bool {
    GIVEN_UP.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survivors_of_all_that_wait_at_the_end_wait_there_and_no_others() {
        let all = [0, 1, 2, 3];
        assert!(follows(&all, &all, &[0, 2, 3]));
        assert_eq!(left_behind(&all, &[0, 2, 3]).collect::<Vec<_>>(), [(1, 1)]);
        // As many ranks as wait there, but others.
        assert!(!follows(&[0, 2, 3], &[1, 2, 3], &[2, 3]));
        assert!(!follows(&all, &[1, 2, 3], &[2, 3]));
        // The second failure.
        assert!(follows(&[0, 2, 3], &[0, 2, 3], &[0, 3]));
        assert_eq!(left_behind(&[0, 2, 3], &[0, 3]).collect::<Vec<_>>(), [(1, 2)]);
        // Another transport of all ranks.
        assert!(follows(&[0, 2, 3], &all, &[0, 3]));
        assert!(!follows(&[0, 2, 3], &all, &[0, 1, 3]));
    }
}
