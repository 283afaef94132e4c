//! Ranks that go on without one that is gone, under a launcher that lets them.

use std::process::Command;
use std::thread;

use libtest_mimic::Trial;
use syncbn::{BatchNormConfig, Device, SyncBatchNorm};
use syncbn_mpi::Mpi;

use crate::faults::{CULPRIT, DEADLINE};
use crate::launch::Job;
use crate::scenes::{Reported, group};
use crate::trial;

/// Begins the name of a scene in which ranks go on; then comes the fault of rank 1.
pub const SURVIVES: &str = "survives: ";
const PROCESSES: usize = 4;
/// Steps before the fault, and after it.
const STEPS: usize = 3;

/// One step of this rank: the value is its number in the job.
fn step(layer: &SyncBatchNorm, rank: usize) -> Result<f64, syncbn::Error> {
    let x = Device::host().upload(&[1, 1], &[rank as f32])?;
    let forward = pollster::block_on(layer.forward_train(&x))?;
    Ok(forward.saved.statistics().map_or(f64::NAN, |global| global.channels()[0].mean))
}

/// A few good steps, the fault of rank 1, and a few good steps of those that are left.
pub fn play(fault: &str, mpi: &Mpi, all_reduced: bool) -> Reported {
    let world = group(mpi, all_reduced)?.with_deadline(DEADLINE);
    let rank = world.rank();
    let config = BatchNormConfig::torch(1);
    let mut layer = SyncBatchNorm::new(config, [Device::host()])?.named("bn1").in_group(&world)?;
    for _ in 0..STEPS {
        step(&layer, rank)?;
    }
    if rank == CULPRIT {
        match fault {
            "is killed" => {
                Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status()?;
            }
            "panics" => panic!("planted"),
            "exits" => std::process::exit(0),
            "leaves" => return Ok("left".to_owned()),
            // The others wait for its step, and then for its request.
            "comes later" => thread::sleep(3 * DEADLINE),
            _ => return Err(format!("there is no fault {fault:?}").into()),
        }
    }
    let before = layer.running_stats();
    let survivors = match step(&layer, rank) {
        Ok(_) => return Err("nobody noticed the fault".into()),
        Err(error) => {
            println!("rank {rank}: error: {error}");
            // This is the group's own deadline. `left_behind` in `edges.rs` gives another, and so
            // shows that the argument counts.
            pollster::block_on(world.survivors(DEADLINE))?
        }
    };
    if layer.running_stats() != before {
        return Err("the step that failed has changed running statistics".into());
    }
    layer.set_group(&survivors)?;
    let means = (0..STEPS).map(|_| step(&layer, rank)).collect::<Result<Vec<_>, _>>()?;
    // Groups of the new group, too.
    let pair = pollster::block_on(survivors.partition(&[vec![0, 1]]))?;
    pollster::block_on(pair.barrier())?;
    let tracked = layer.running_stats().map_or(0, |running| running.num_batches_tracked);
    let ranks = survivors.world_ranks();
    Ok(format!("went on as one of {ranks:?}, means {means:.6?}, {tracked} steps"))
}

/// Whether the fault ends the process, or it comes later and learns that it was left behind.
const CASES: [(&str, bool); 6] = [
    ("is killed", true),
    ("panics", true),
    ("exits", true),
    ("leaves", true),
    ("comes later", false),
    ("is killed all_reduced", true),
];

pub fn trials() -> Vec<Trial> {
    let name =
        |fault: &str| format!("the_others_go_on_without_a_rank_that_{}", fault.replace(' ', "_"));
    CASES.map(|(fault, gone)| trial(&name(fault), move || check(fault, gone))).into()
}

fn check(fault: &str, gone: bool) -> Result<(), String> {
    let job = Job::new(&format!("{SURVIVES}{fault}"), PROCESSES).options(&["--enable-recovery"]);
    let outcome = job.with_statuses().run()?;
    if fault == "exits" {
        // It ends by its own words, and not by a panic of exiting twice.
        outcome.these_say([CULPRIT], "this rank left its program before the end of MPI")?;
        outcome.these_say([CULPRIT], "exit status 87.")?;
        outcome.expect(!outcome.text.contains("panicked"), "no panic")?;
    }
    // The mean of 0, 2 and 3 in the group of three.
    let mean = 5.0 / 3.0;
    let steps = 2 * STEPS;
    let went_on =
        format!("went on as one of [0, 2, 3], means {:.6?}, {steps} steps", [mean; STEPS]);
    outcome.these_say([0, 2, 3], &went_on)?;
    if !gone {
        let behind = "error: survivors of the group: this rank came too late: rank(s) [0, 2, 3] \
                      have gone on without it";
        outcome.these_say([CULPRIT], behind)?;
    }
    Ok(())
}
