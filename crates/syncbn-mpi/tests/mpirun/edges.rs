//! Groups made at the same time, ranks that call MPI no more, and the ends of groups of survivors.

use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::future::join;
use libtest_mimic::Trial;
use syncbn::ProcessGroup;
use syncbn::collective::Collective;
use syncbn_mpi::{Mpi, MpiRank};

use crate::faults::{CULPRIT, DEADLINE, suspend};
use crate::launch::{Job, Kind, now};
use crate::scenes::{Reported, group, world};
use crate::{alone, trial};

/// All processes are suspended while some wait for the transport of all.
pub const SUSPENDED_FIRST: &str = "suspended at the beginning";
const THREADS: &str = "threads make groups";
const CROSSED: &str = "groups are awaited together";
const ABORTS: &str = "aborts and computes";
const UNHEARD: &str = "aborts while the others compute";
const TWO_ENDS: &str = "survivors of two groups";
const BEHIND: &str = "left behind in one of two groups";

pub const SCENES: [&str; 7] =
    [SUSPENDED_FIRST, THREADS, CROSSED, ABORTS, UNHEARD, TWO_ENDS, BEHIND];

/// Groups that each thread makes.
const GROUPS: usize = 30;
/// Groups that are aborted, one after the other.
const ABORTED: usize = 4;
/// How long a rank calls no MPI after it has aborted.
const COMPUTES: Duration = Duration::from_secs(4);

pub fn play(scene: &str, mpi: &Mpi) -> Reported {
    match scene {
        SUSPENDED_FIRST => {
            let mut signals = suspend()?;
            if mpi.rank() == CULPRIT {
                // It wakes up when it is resumed.
                thread::sleep(DEADLINE / 2);
            }
            let group = group(mpi, false);
            signals.wait()?;
            pollster::block_on(group?.barrier())?;
            Ok("went on".to_owned())
        }
        THREADS => threads(mpi),
        CROSSED => crossed(mpi),
        ABORTS => aborts(mpi),
        UNHEARD => aborts_unheard(mpi),
        BEHIND => left_behind(mpi),
        _ => two_ends(mpi),
    }
}

/// Every rank makes groups of the same members out of two groups at the same time.
fn threads(mpi: &Mpi) -> Reported {
    let worlds = [group(mpi, false)?, group(mpi, false)?];
    let makes = |world: &ProcessGroup| {
        for number in 0..GROUPS {
            let made = pollster::block_on(world.partition(&[vec![0, 1], vec![2]]))?;
            let own = (4 * number + world.rank()) as u8;
            let said = pollster::block_on(made.all_gather(&[own]))?;
            let said: Vec<usize> = said.iter().map(|bytes| bytes[0].into()).collect();
            if made.world_size() == 2 && said != [4 * number, 4 * number + 1] {
                return Err(format!("group {number}: {said:?}").into());
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    thread::scope(|scope| {
        let running = worlds.each_ref().map(|world| scope.spawn(move || makes(world)));
        running.into_iter().try_for_each(|thread| thread.join().expect("a thread that ends"))
    })
    .map_err(|error| error.to_string())?;
    Ok("made all groups".to_owned())
}

/// Ranks 0 and 1 make two groups by one future each, in another order. Both calls wait for rank 2
/// alone when it comes.
fn crossed(mpi: &Mpi) -> Reported {
    let worlds = [group(mpi, false)?, group(mpi, false)?];
    let mut worlds = worlds.map(|group| group.with_deadline(DEADLINE));
    if mpi.rank() == CULPRIT {
        worlds.reverse();
    }
    let lists = [vec![0, 1], vec![2]];
    let [mut one, mut other] = worlds.each_ref().map(|world| Box::pin(world.partition(&lists)));
    if mpi.rank() == 2 {
        thread::sleep(DEADLINE / 4);
    } else {
        let mut context = Context::from_waker(Waker::noop());
        let ends = [one.as_mut().poll(&mut context), other.as_mut().poll(&mut context)];
        if ends.iter().any(Poll::is_ready) {
            return Err("a call did not wait for rank 2".into());
        }
        thread::sleep(DEADLINE / 2);
    }
    let began = Instant::now();
    let (one, other) = pollster::block_on(join(one, other));
    let failed = [one.is_err(), other.is_err()];
    let waited = began.elapsed();
    // At the end ranks have two seconds for each other, and rank 2 may wait for one deadline where
    // the others wait for two.
    thread::sleep((3 * DEADLINE).saturating_sub(waited));
    Ok(format!("waited {} ms, failed: {failed:?}", waited.as_millis()))
}

/// A rank aborts with a long message and then calls no MPI.
fn aborts(mpi: &Mpi) -> Reported {
    let rank = world(mpi, false)?;
    let gather = || pollster::block_on(rank.all_gather(Vec::new(), Duration::from_secs(30)));
    gather()?;
    let at = now();
    if mpi.rank() == CULPRIT {
        // The others wait.
        thread::sleep(DEADLINE / 4);
        println!("rank {CULPRIT}: aborts at {}", now().as_micros());
        rank.abort(vec![7; 300_000]);
        thread::sleep(COMPUTES);
        return Ok("computed".to_owned());
    }
    let error = gather().err().ok_or("nobody noticed the abort")?;
    let said = now();
    println!("rank {}: told at {}", mpi.rank(), said.as_micros());
    Ok(format!("{} after {} ms", error.to_string().len(), (said - at).as_millis()))
}

/// A rank aborts with a long message while the others call no MPI, and so do not take it. Another
/// thread of it uses the same group meanwhile.
fn aborts_unheard(mpi: &Mpi) -> Reported {
    let groups = (0..ABORTED).map(|_| world(mpi, false)).collect::<Result<Vec<_>, _>>()?;
    let gather = |rank: &MpiRank| pollster::block_on(rank.all_gather(Vec::new(), DEADLINE));
    for rank in &groups {
        gather(rank)?;
    }
    if mpi.rank() != CULPRIT {
        thread::sleep(DEADLINE / 2);
        let is_told = groups.iter().all(|rank| gather(rank).is_err());
        return if is_told { Ok("told".to_owned()) } else { Err("nobody told of it".into()) };
    }
    // The others have come out of the last exchange.
    thread::sleep(DEADLINE / 20);
    let mut took = Vec::new();
    let mut waited = Vec::new();
    for rank in &groups {
        let timed = |call: &dyn Fn()| {
            let began = Instant::now();
            call();
            began.elapsed().as_micros()
        };
        thread::scope(|scope| {
            let aborts = scope.spawn(move || timed(&|| rank.abort(vec![7; 300_000])));
            thread::sleep(Duration::from_millis(10));
            waited.push(timed(&|| drop(gather(rank))));
            took.push(aborts.join().expect("a thread that ends"));
        });
    }
    let [took, waited] = [took, waited].map(|micros| micros.into_iter().min().unwrap_or(0));
    Ok(format!("aborted for {took} µs, others waited {waited} µs"))
}

/// Rank 3 comes too late for the survivors of one group, and is one of those of another group of
/// the same ranks. The others wait for it at no end.
fn left_behind(mpi: &Mpi) -> Reported {
    let groups = [group(mpi, false)?, group(mpi, false)?];
    let [one, other] = groups.map(|group| group.with_deadline(DEADLINE));
    let rank = one.rank();
    pollster::block_on(one.barrier())?;
    if rank == 3 {
        thread::sleep(3 * DEADLINE);
    }
    if pollster::block_on(one.barrier()).is_ok() {
        return Err("nobody was late".into());
    }
    let went_on = pollster::block_on(one.survivors(DEADLINE));
    if went_on.map(|group| group.world_ranks().to_vec()).ok() != (rank < 3).then(|| vec![0, 1, 2]) {
        return Err("not ranks 0, 1 and 2 alone went on".into());
    }
    let all = pollster::block_on(other.survivors(4 * DEADLINE))?;
    pollster::block_on(all.barrier())?;
    Ok(format!("at its end, as one of {:?}", all.world_ranks()))
}

/// The survivors of all ranks are other ranks than those of a group, and as many as it had.
fn two_ends(mpi: &Mpi) -> Reported {
    let all = group(mpi, false)?.with_deadline(DEADLINE);
    let rank = all.rank();
    let own = if rank == 0 { vec![0] } else { vec![1, 2, 3] };
    let part = pollster::block_on(all.subgroup(&own))?;
    if rank == CULPRIT {
        Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status()?;
    }
    if pollster::block_on(all.barrier()).is_ok() {
        return Err("nobody noticed the fault".into());
    }
    let survivors = pollster::block_on(all.survivors(DEADLINE))?;
    if survivors.world_ranks() != [0, 2, 3] {
        return Err(format!("survivors {:?}", survivors.world_ranks()).into());
    }
    if rank > 0 {
        let survivors = pollster::block_on(part.survivors(DEADLINE))?;
        if survivors.world_ranks() != [2, 3] {
            return Err(format!("survivors of the group {:?}", survivors.world_ranks()).into());
        }
        thread::sleep(DEADLINE);
        println!("rank {rank}: comes at {}", now().as_micros());
    }
    Ok("at its end".to_owned())
}

/// Those that may run beside others.
pub fn trials(launcher: Kind) -> Vec<Trial> {
    let mut trials = Vec::new();
    if launcher == Kind::OpenMpi {
        trials.push(trial("who_is_left_behind_in_one_group_and_not_in_another_ends", || {
            let job = Job::new(BEHIND, 4).options(&["--enable-recovery"]);
            let outcome = job.with_statuses().run()?;
            outcome.these_say(0..4, "at its end, as one of [0, 1, 2, 3]")?;
            outcome.these_say(0..4, "exit status 0.")
        }));
        trials.push(trial("survivors_wait_at_the_end_for_those_of_all_ranks_alone", || {
            let outcome = Job::new(TWO_ENDS, 4).options(&["--enable-recovery"]).run()?;
            outcome.these_say([0, 2, 3], "at its end")?;
            let came = outcome.numbers("comes at").into_iter().max().unwrap_or(u64::MAX);
            let ended = outcome.numbers("rank 0: ended at").first().copied().unwrap_or(0);
            outcome.expect(ended >= came, "rank 0 to wait for ranks 2 and 3")
        }));
    }
    trials.push(trial("threads_make_groups_of_the_same_ranks_at_the_same_time", || {
        Job::new(THREADS, 3).run()?.all_say("made all groups")
    }));
    trials
}

/// Those that suspend their processes or measure time.
pub fn timed(launcher: Kind) -> Vec<Trial> {
    let mut trials = vec![
        alone("processes_suspended_at_the_beginning_are_not_late", || {
            Job::new(SUSPENDED_FIRST, 3).run()?.all_say("went on")
        }),
        alone("groups_awaited_together_wait_for_their_deadline_at_most", || {
            let outcome = Job::new(CROSSED, 3).run()?;
            let waited = outcome.numbers("waited");
            println!("measured: groups awaited together: {waited:?} ms");
            // Two deadlines, one after the other, and a machine with other work.
            let limit = 4 * DEADLINE.as_millis() as u64;
            let is_bounded = waited.iter().all(|&millis| millis < limit);
            outcome.expect(is_bounded, "no rank to wait for longer than its deadlines")?;
            outcome.all_say("waited")
        }),
        alone("who_aborts_and_calls_no_mpi_has_told_the_others", move || {
            let outcome = Job::new(ABORTS, 3).options(&launcher.tcp()).run()?;
            let told = outcome.numbers("told at");
            let aborted = outcome.numbers("aborts at");
            outcome.expect(told.len() == 2 && aborted.len() == 1, "all three to say when")?;
            let after: Vec<u64> = told.iter().map(|at| at.saturating_sub(aborted[0])).collect();
            println!("measured: told of an abort after {after:?} µs");
            let limit = COMPUTES.as_micros() as u64 / 2;
            outcome.expect(after.iter().all(|&micros| micros < limit), "both to be told at once")
        }),
    ];
    if launcher == Kind::OpenMpi {
        // Its TCP keeps a notice of this length until it is taken.
        trials.push(alone("a_thread_does_not_wait_for_the_notices_of_another", move || {
            let outcome = Job::new(UNHEARD, 3).options(&launcher.tcp()).run()?;
            outcome.these_say([0, 2], "told")?;
            let first = |what| outcome.numbers(what).first().copied();
            let [aborted, waited] = [first("aborted for"), first("others waited")];
            println!("measured: another thread waits {waited:?} of {aborted:?} µs of an abort");
            // An abort looks after its notices for a tenth of a second.
            let limit = 50_000;
            let is_unheard = aborted.is_some_and(|micros| micros > limit);
            outcome.expect(is_unheard, "notices that nobody takes")?;
            let is_free = waited.is_some_and(|micros| micros < limit);
            outcome.expect(is_free, "the other thread not to wait for them")
        }));
    }
    trials
}
