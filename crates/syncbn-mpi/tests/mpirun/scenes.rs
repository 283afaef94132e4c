//! The actions of a rank in the scenes of the tests.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use syncbn::ProcessGroup;
use syncbn::collective::conformance::{self, CHECKS};
use syncbn_mpi::{Mpi, MpiRank};

use crate::{bits, edges, faults, launch, reproducible, save, survive};

/// A rank's scene: what it has to say at its end, or its error.
pub type Reported = Result<String, Box<dyn std::error::Error>>;

pub fn run(scene: &str) -> ExitCode {
    // Longer than the ranks of a scene are apart at its beginning and its end.
    let patience = Duration::from_secs(match scene {
        "never ends" | edges::SUSPENDED_FIRST => 2,
        _ => 60,
    });
    // Begun by another library, which ends it.
    let owner = (scene == "bits of another owner")
        .then(|| mpi::environment::initialize_with_threading(mpi::Threading::Multiple));
    let attached = if owner.is_some() { Mpi::attach() } else { Mpi::initialize() };
    let mpi = match attached {
        Ok(mpi) => mpi.with_patience(patience),
        Err(error) => {
            println!("no MPI: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Ok(second) = Mpi::attach() {
        println!("a second one in this process: {second:?}");
        return ExitCode::FAILURE;
    }
    let rank = mpi.rank();
    println!("rank {rank}: pid {}", std::process::id());
    let (mpi, scene) = match scene.strip_prefix(save::SAVES) {
        Some(fault) => (save::when_it_fails(mpi), fault),
        None => (mpi, scene),
    };
    let all_reduced = scene.ends_with(" all_reduced");
    let reported = match scene.trim_end_matches(" all_reduced") {
        "conformance" => conformance(&mpi, all_reduced),
        "bits" => bits::over_processes(&mpi, all_reduced),
        "bits of another owner" => bits::over_processes(&mpi, all_reduced),
        "alone" => Err("a rank of one beside others".into()),
        "bits of many" => bits::of_many(&mpi),
        "groups" => bits::in_groups(&mpi),
        "suspended" => faults::suspended(&mpi, all_reduced),
        "reproducible" => reproducible::over_processes(&mpi, all_reduced),
        edge if edges::SCENES.contains(&edge) => edges::play(edge, &mpi),
        fault => match fault.strip_prefix(survive::SURVIVES) {
            Some(fault) => survive::play(fault, &mpi, all_reduced),
            None => faults::play(fault, &mpi, all_reduced),
        },
    };
    let (text, status) = match reported {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (format!("error: {error}"), ExitCode::FAILURE),
    };
    let line = format!("rank {rank}: {text}\n");
    print!("{line}");
    // Where mpirun is cut off from this rank, it does not see what the rank prints.
    if let Ok(folder) = std::env::var(launch::REPORTS) {
        let _ = std::fs::write(Path::new(&folder).join(rank.to_string()), line);
    }
    drop(mpi);
    println!("rank {rank}: ended at {}", launch::now().as_micros());
    status
}

/// The transport of all ranks. With `all_reduced` it uses the tree from two ranks on.
pub fn world(mpi: &Mpi, all_reduced: bool) -> Result<MpiRank, syncbn_mpi::MpiError> {
    if all_reduced { mpi.world_with_tree_from(2) } else { mpi.world() }
}

pub fn group(mpi: &Mpi, all_reduced: bool) -> Result<ProcessGroup, syncbn_mpi::MpiError> {
    Ok(ProcessGroup::new(world(mpi, all_reduced)?))
}

fn conformance(mpi: &Mpi, all_reduced: bool) -> Reported {
    for check in CHECKS {
        pollster::block_on(conformance::run(check, Box::new(world(mpi, all_reduced)?)))?;
    }
    Ok("passed the suite".to_owned())
}
