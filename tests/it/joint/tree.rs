//! Joint calls of more processes than a transport gathers from: all-reduce along the tree, as calls
//! of one layer do.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use syncbn::collective::{Collective, CollectiveError, Gathered, LocalGroup, LocalRank, ReduceOp};
use syncbn::{Device, ProcessGroup};

use super::LONG;
use super::common::*;
use super::processes::{Outcome, Process, run};

/// One more than the processes from which the transport of MPI gathers.
const PROCESSES: usize = 33;

/// The crate's own transport, which merges and refuses to gather.
#[derive(Debug)]
struct Tree(LocalRank);

impl Collective for Tree {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn world_size(&self) -> usize {
        self.0.world_size()
    }

    fn all_gather(
        &self,
        _: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        ready(Err(CollectiveError::Transport { message: "too many to gather from".to_owned() }))
            .boxed()
    }

    fn supports_all_reduce(&self) -> bool {
        true
    }

    fn all_reduce(
        &self,
        message: Vec<u8>,
        op: ReduceOp,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Arc<[u8]>, CollectiveError>> {
        self.0.all_reduce(message, op, deadline)
    }

    fn abort(&self, message: Vec<u8>) {
        self.0.abort(message);
    }

    fn split(&self, key: u64, members: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        self.0.split(key, members)
    }
}

/// What every pass and every exchange gives in each process.
fn outcomes(groups: Vec<ProcessGroup>, devices: &[Device], is_joint: bool) -> Vec<Outcome> {
    on_threads(groups, |group| {
        run(&mut Process::new(&group, devices), is_joint, &AtomicUsize::new(0)).1
    })
}

fn tree() -> Vec<ProcessGroup> {
    let group = |rank| ProcessGroup::new(Tree(rank)).with_deadline(LONG);
    LocalGroup::ranks(PROCESSES).into_iter().map(group).collect()
}

#[test]
fn no_joint_call_of_many_processes_gathers_and_each_has_the_bits_of_those_that_do() {
    for kind in Kind::ALL {
        let devices = kind.devices(2);
        let found = outcomes(tree(), &devices, true);
        assert!(
            found == outcomes(process_groups(PROCESSES, LONG), &devices, true),
            "{kind:?}: other than gathered"
        );
        assert!(found == outcomes(tree(), &devices, false), "{kind:?}: other than one by one");
    }
}
