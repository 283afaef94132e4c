//! The transport in jobs of several processes, under `mpirun`.
//!
//! This program is both sides. Started by hand or by cargo it is the launcher: every test starts a
//! job of itself (`launch`), with a limit of time, and judges what the ranks have printed
//! (`judge`). With the name of a scene in its environment it is a rank (`scenes`).
//!
//! Most jobs wait most of the time: for deadlines, and for their launcher. Several tests therefore
//! run at a time ([`trial`]). Those that measure time run after them, one at a time ([`alone`]): no
//! other job of MPI runs then. `scripts/test.sh` runs all of this beside other tests;
//! `scripts/mpi.sh test` prints the times of a machine without them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bits;
mod edges;
mod faults;
mod judge;
mod launch;
mod machines;
mod reproducible;
mod save;
mod scenes;
mod survive;

use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use libtest_mimic::{Arguments, Failed, Trial};

use launch::Job;

/// Tests at a time, unless `--test-threads` sets another number. They have about 16 processes, 8
/// for each of two cores. With slices of some milliseconds each, a rank that is ready to run waits
/// far less than a second, which is the shortest deadline of these tests, also beside the one or two
/// threads that `scripts/test.sh` keeps busy.
const AT_A_TIME: usize = 4;

/// Locked for reading by tests that may run beside others, and for writing by those that may not.
static MACHINE: RwLock<()> = RwLock::new(());

fn main() -> ExitCode {
    if let Ok(scene) = std::env::var(launch::SCENE) {
        return scenes::run(&scene);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    match launch::Kind::found() {
        Ok((_, launcher)) => libtest_mimic::run(&arguments, trials(launcher)).exit_code(),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A test that may run beside others: a machine with other work delays it, and changes nothing.
fn trial(name: &str, test: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let _beside = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        test().map_err(Failed::from)
    })
}

/// A test that runs beside no other job of MPI: it measures time, suspends its processes, makes
/// network namespaces of this program, or fills the machine.
fn alone(name: &str, test: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
        test().map_err(Failed::from)
    })
}

/// All tests in the order in which they begin. Those that run by themselves are last, because each
/// waits until nothing else runs. Of the others the longest are first, so that none runs long after
/// the rest has ended.
fn trials(launcher: launch::Kind) -> Vec<Trial> {
    let mut trials = Vec::new();
    // Hydra does not keep a job whose process is gone.
    if launcher == launch::Kind::OpenMpi {
        trials.extend(survive::trials());
    }
    trials.extend(save::trials(launcher));
    trials.extend(edges::trials(launcher));
    for processes in [2, 3, 4] {
        trials.push(trial(
            &format!("the_transport_conforms_with_{processes}_processes"),
            move || Job::new("conformance", processes).run()?.all_say("passed the suite"),
        ));
        trials.push(trial(
            &format!("the_all_reducing_transport_conforms_with_{processes}_processes"),
            move || {
                Job::new("conformance all_reduced", processes).run()?.all_say("passed the suite")
            },
        ));
        trials.push(trial(&format!("{processes}_processes_have_the_bits_of_one"), move || {
            Job::new("bits", processes).run()?.all_say("the bits of one process")
        }));
    }
    for (scene, processes) in
        [("reproducible", 2), ("reproducible", 4), ("reproducible all_reduced", 3)]
    {
        trials.push(trial(
            &format!("{scene}_layers_of_{processes}_processes_have_the_bits_of_one_rank")
                .replace(' ', "_"),
            move || Job::new(scene, processes).run()?.all_say("the bits of one rank"),
        ));
    }
    trials.push(trial("7_processes_that_all_reduce_have_the_bits_of_one", || {
        Job::new("bits all_reduced", 7).run()?.all_say("the bits of one process")
    }));
    trials.push(trial("both_forms_make_process_groups", || {
        Job::new("groups", 4).run()?.all_say("both forms agree")
    }));
    trials.push(trial("an_mpi_that_another_library_has_begun_is_used_and_left_to_it", || {
        Job::new("bits of another owner", 2).run()?.all_say("the bits of one process")
    }));
    trials.push(trial("a_launcher_of_another_library_is_refused", || {
        // What such a launcher starts: a process that MPI knows nobody else of.
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut singleton = std::process::Command::new(program);
        let ended = singleton.env(launch::SCENE, "alone").env("PMI_SIZE", "4").output();
        let ended = ended.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&ended.stdout).into_owned();
        let refused = "no MPI: PMI_SIZE is 4, but MPI knows of one process: start the program with";
        let is_refused = ended.status.code() == Some(1) && text.contains(refused);
        if is_refused {
            Ok(())
        } else {
            Err(format!("{}, expected {refused}: {text}", ended.status))
        }
    }));
    trials.push(alone("from_9_processes_on_statistics_are_all_reduced_to_the_bits_of_one", || {
        Job::new("bits of many", 34).run()?.all_say("the bits of one process")
    }));
    trials.extend(machines::trials(launcher));
    trials.extend(edges::timed(launcher));
    trials.extend(faults::trials());
    trials
}
