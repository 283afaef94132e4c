//! The transport in jobs of several processes, under `mpirun`.
//!
//! This program is both sides. Started by hand or by cargo it is the launcher: every test starts a
//! job of itself (`launch`), with a limit of time, and judges what the ranks have printed
//! (`judge`). With the name of a scene in its environment it is a rank (`scenes`).
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

use libtest_mimic::{Arguments, Failed, Trial};

use launch::Job;

fn main() -> ExitCode {
    if let Ok(scene) = std::env::var(launch::SCENE) {
        return scenes::run(&scene);
    }
    let mut arguments = Arguments::from_args();
    // Faults are timed, and a job of four fills a machine of two cores.
    arguments.test_threads = Some(1);
    match launch::Kind::found() {
        Ok((_, launcher)) => libtest_mimic::run(&arguments, trials(launcher)).exit_code(),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn trial(name: &str, test: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(Failed::from))
}

fn trials(launcher: launch::Kind) -> Vec<Trial> {
    let mut trials = Vec::new();
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
    trials.push(trial("from_9_processes_on_statistics_are_all_reduced_to_the_bits_of_one", || {
        Job::new("bits of many", 34).run()?.all_say("the bits of one process")
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
        let mut alone = std::process::Command::new(program);
        let ended = alone.env(launch::SCENE, "alone").env("PMI_SIZE", "4").output();
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
    trials.extend(faults::trials());
    trials.extend(edges::trials(launcher));
    trials.extend(save::trials(launcher));
    trials.extend(machines::trials(launcher));
    // Hydra does not keep a job whose process is gone.
    if launcher == launch::Kind::OpenMpi {
        trials.extend(survive::trials());
    }
    trials
}
