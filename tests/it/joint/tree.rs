//! Joint calls of more processes than a transport gathers from: all-reduce along the tree, as calls
//! of one layer do.

use std::sync::atomic::AtomicUsize;

use syncbn::{Device, ProcessGroup};

use super::LONG;
use super::common::transport::Tapped;
use super::common::*;
use super::processes::{Outcome, Process, run};

/// One more than the processes from which the transport of MPI gathers.
const PROCESSES: usize = 33;

/// What every pass and every exchange gives in each process.
fn outcomes(groups: Vec<ProcessGroup>, devices: &[Device], is_joint: bool) -> Vec<Outcome> {
    on_threads(groups, |group| {
        run(&mut Process::new(&group, devices), is_joint, &AtomicUsize::new(0)).1
    })
}

/// Over a transport that all-reduces and refuses to gather.
fn tree() -> Vec<ProcessGroup> {
    groups_over(PROCESSES, LONG, |rank| {
        Tapped::new(rank, |message| message).all_reducing(true).without_all_gather()
    })
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
