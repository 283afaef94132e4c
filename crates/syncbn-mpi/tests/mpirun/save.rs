//! A failed job in which the ranks save before it ends.

use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use syncbn_mpi::Mpi;

use crate::launch::{Job, Kind};
use crate::trial;

/// Begins the name of a scene in which ranks save; then comes the fault of rank 1.
pub const SAVES: &str = "saves: ";
/// Longer than ranks wait for each other without a hook, after a failure.
const SAVING: Duration = Duration::from_secs(3);
/// Longer than that, and shorter than a job may take.
const LIMIT: Duration = Duration::from_secs(8);

/// The job with a hook that takes its time.
pub fn when_it_fails(mpi: Mpi) -> Mpi {
    let rank = mpi.rank();
    mpi.before_end(LIMIT, move |why| {
        thread::sleep(SAVING);
        println!("rank {rank}: saved, after: {why}");
    })
}

/// A fault of rank 1, why the others save, and the status of the job.
const CASES: [(&str, &str, i32); 4] = [
    ("panics", "rank 1 panicked", 101),
    ("exits", "rank 1 left", 87),
    ("never comes", "ranks [1] did not come within 2s", 87),
    ("has a wrong shape", "rank 1 aborted", 1),
];

pub fn trials(launcher: Kind) -> Vec<Trial> {
    let name = |fault: &str| {
        format!("the_others_save_before_the_end_when_a_rank_{}", fault.replace(' ', "_"))
    };
    let case = |(fault, why, status)| trial(&name(fault), move || check(fault, why, status));
    let mut trials: Vec<Trial> = CASES.into_iter().map(case).collect();
    if launcher == Kind::OpenMpi {
        trials.push(trial("who_leaves_its_program_saves_under_no_launcher", || {
            let job = Job::new(&format!("{SAVES}exits"), 3).options(&["--enable-recovery"]);
            let outcome = job.with_statuses().run()?;
            outcome.these_say([0, 2], "saved, after: rank 1 left")?;
            outcome.these_say(0..3, "exit status 87.")?;
            outcome.expect(!outcome.says(1, "saved"), "rank 1 not to save")
        }));
    }
    trials
}

fn check(fault: &str, why: &str, status: i32) -> Result<(), String> {
    let outcome = Job::new(&format!("{SAVES}{fault}"), 3).run()?;
    outcome.these_say([0, 2], &format!("saved, after: {why}"))?;
    outcome.expect(outcome.status == Some(status), &format!("status {status}"))?;
    // A rank that refuses its own request lives, and saves as well.
    let lives = fault == "has a wrong shape";
    outcome.expect(outcome.says(1, "saved") == lives, "rank 1 to save only if it lives")
}
