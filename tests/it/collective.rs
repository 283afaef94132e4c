//! Transports: the crate's own passes the conformance suite under every executor, and the suite
//! catches broken ones.
//!
//! `broken` plants the faults of transports, `wakers` uses a group while it wakes somebody.

mod broken;
mod local;
mod wakers;

use crate::common;

use futures::future::join_all;
use syncbn::collective::Collective;
use syncbn::collective::LocalGroup;
use syncbn::collective::conformance::{CHECKS, Check, Failure, run};

use broken::{Broken, Fault};

const WORLD_SIZES: [usize; 4] = [2, 3, 4, 8];

/// What drives the ranks of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Executor {
    /// A thread for each rank.
    Threads,
    /// A task for each rank, on several threads.
    Tasks,
    /// A task for each rank, all on one thread.
    TasksOnOneThread,
    /// One future that joins those of all ranks, on one thread.
    Joined,
}

type Rank = Box<dyn Collective>;

impl Executor {
    fn run(self, check: Check, ranks: Vec<Rank>) -> Vec<Result<(), Failure>> {
        match self {
            Self::Threads => common::on_threads(ranks, |rank| pollster::block_on(run(check, rank))),
            Self::Tasks => {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
                runtime.block_on(tasks(check, ranks))
            }
            Self::TasksOnOneThread => tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(tasks(check, ranks)),
            Self::Joined => {
                pollster::block_on(join_all(ranks.into_iter().map(|rank| run(check, rank))))
            }
        }
    }
}

async fn tasks(check: Check, ranks: Vec<Rank>) -> Vec<Result<(), Failure>> {
    let tasks: Vec<_> = ranks.into_iter().map(|rank| tokio::spawn(run(check, rank))).collect();
    join_all(tasks)
        .await
        .into_iter()
        .map(|task| task.expect("a task that does not panic"))
        .collect()
}

/// The whole suite on groups of every size, the sizes at the same time because some checks wait.
fn conforms(executor: Executor, transport: impl Fn(usize) -> Vec<Rank> + Sync) {
    common::on_threads(WORLD_SIZES.to_vec(), |world_size| {
        for check in CHECKS {
            let results = executor.run(check, transport(world_size));
            assert_eq!(
                results,
                vec![Ok(()); world_size],
                "{check:?} with {world_size} ranks under {executor:?}"
            );
        }
    });
}

fn local(world_size: usize) -> Vec<Rank> {
    LocalGroup::ranks(world_size).into_iter().map(|rank| Box::new(rank) as Rank).collect()
}

fn broken(fault: Fault, world_size: usize) -> Vec<Rank> {
    LocalGroup::ranks(world_size)
        .into_iter()
        .map(|rank| Box::new(Broken::new(rank, fault)) as Rank)
        .collect()
}

#[test]
fn the_local_transport_conforms_with_a_thread_for_each_rank() {
    conforms(Executor::Threads, local);
}

#[test]
fn the_local_transport_conforms_with_a_task_for_each_rank() {
    conforms(Executor::Tasks, local);
}

#[test]
fn the_local_transport_conforms_with_all_tasks_on_one_thread() {
    conforms(Executor::TasksOnOneThread, local);
}

#[test]
fn the_local_transport_conforms_with_all_futures_joined_on_one_thread() {
    conforms(Executor::Joined, local);
}

/// The wrapper itself must not be what the suite objects to.
#[test]
fn the_wrapper_of_the_planted_faults_conforms_without_a_fault() {
    conforms(Executor::Threads, |world_size| broken(Fault::None, world_size));
}

#[test]
fn every_planted_fault_of_a_transport_is_caught_by_its_check() {
    let faults = [
        (Fault::SwapsTwoMessages, Check::Messages),
        (Fault::CutsLongMessages, Check::Messages),
        (Fault::RepeatsARound, Check::Order),
        (Fault::IgnoresDeadlines, Check::Late),
        (Fault::NamesAnotherRank, Check::Late),
        (Fault::ForgetsThatItBroke, Check::Late),
        (Fault::HidesLeavers, Check::Left),
        (Fault::KeepsDroppedFutures, Check::Dropped),
        (Fault::SwallowsAborts, Check::Abort),
        (Fault::CutsAbortMessages, Check::Abort),
        (Fault::SplitsIntoItself, Check::Split),
        (Fault::MergesBackwards, Check::AllReduce),
    ];
    let cases: Vec<_> = faults
        .iter()
        .flat_map(|&fault| WORLD_SIZES.map(|world_size| (fault, world_size)))
        .collect();
    common::on_threads(cases, |((fault, check), world_size)| {
        let results = Executor::Threads.run(check, broken(fault, world_size));
        let caught: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert!(!caught.is_empty(), "{fault:?} with {world_size} ranks passed {check:?}");
        assert!(caught.iter().all(|failure| failure.check == check), "{caught:?}");
    });
}
