//! A fault of one rank. Every other rank reports its place and the missing rank, and then every
//! process ends. The test prints the time of that. The README has the table.

use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use syncbn::{BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};
use syncbn_mpi::Mpi;

use crate::alone;
use crate::judge::Outcome;
use crate::launch::{Job, now};
use crate::machines;
use crate::scenes::{Reported, group};

/// How long ranks wait: longer than a loaded machine delays a rank that is ready to run.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// Longer than any job: whoever sleeps so long is never seen again.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// The rank with the fault, of three.
pub const CULPRIT: usize = 1;
const PROCESSES: usize = 3;
/// Calls before the fault; the layer's next exchange has this number.
const GOOD_CALLS: u64 = 3;

struct Layers {
    layers: [SyncBatchNorm; 2],
    group: ProcessGroup,
}

impl Layers {
    fn new(group: ProcessGroup) -> Result<Self, Error> {
        let make = |name: &str| {
            SyncBatchNorm::new(BatchNormConfig::torch(1), [Device::host()])?
                .named(name)
                .in_group(&group)
        };
        Ok(Self { layers: [make("bn1")?, make("bn2")?], group })
    }

    fn forward(&self, layer: usize, dims: &[usize]) -> Result<(), Error> {
        let x =
            Device::host().upload(dims, &vec![self.group.rank() as f32; dims.iter().product()])?;
        pollster::block_on(self.layers[layer].forward_train(&x)).map(|_| ())
    }
}

/// A few good calls, then what `fault` names on one rank while the others go on.
pub fn play(fault: &str, mpi: &Mpi, all_reduced: bool) -> Reported {
    let layers = Layers::new(group(mpi, all_reduced)?.with_deadline(DEADLINE))?;
    for _ in 0..GOOD_CALLS {
        layers.forward(0, &[2, 1])?;
    }
    if fault == "cuts the link" && mpi.rank() == 0 {
        machines::cut_link()?;
    } else if fault == "cuts the link" {
        // Nothing of this exchange is on its way when the link goes down.
        thread::sleep(DEADLINE / 4);
    } else if fault == "leaves before they come" && mpi.rank() != CULPRIT {
        // Rank 0 finds out and leaves as well, long before rank 2 looks.
        thread::sleep(DEADLINE / 8 * (mpi.rank() as u32 + 1));
    } else if mpi.rank() == CULPRIT {
        println!("rank {CULPRIT}: fault at {}", now().as_micros());
        match fault {
            "panics" => panic!("planted"),
            "panics in a thread" => drop(thread::spawn(|| panic!("planted")).join()),
            "panics behind another hook" => {
                std::panic::set_hook(Box::new(|_| {}));
                panic!("planted");
            }
            "keeps its layers" => {
                std::mem::forget(layers);
                return Ok("left".to_owned());
            }
            "never comes" => thread::sleep(FOR_EVER),
            "comes late" => thread::sleep(DEADLINE + Duration::from_millis(1500)),
            "exits" => std::process::exit(0),
            "is killed" | "stops" => {
                let signal = if fault == "stops" { "-STOP" } else { "-KILL" };
                Command::new("kill").args([signal, &std::process::id().to_string()]).status()?;
            }
            "leaves" | "leaves before they come" => {
                drop(layers);
                return Ok("left".to_owned());
            }
            "is in another layer" => layers.forward(1, &[2, 1])?,
            "does something else" => drop(pollster::block_on(layers.group.partition(&[]))?),
            "has a wrong shape" => layers.forward(0, &[2, 7])?,
            "never ends" => {
                layers.forward(0, &[2, 1])?;
                thread::sleep(FOR_EVER);
            }
            _ => return Err(format!("there is no fault {fault:?}").into()),
        }
    }
    layers.forward(0, &[2, 1])?;
    Ok("no error".to_owned())
}

/// Every process is suspended for longer than the deadline while two of them wait for the third.
pub fn suspended(mpi: &Mpi, all_reduced: bool) -> Reported {
    let layers = Layers::new(group(mpi, all_reduced)?.with_deadline(DEADLINE))?;
    layers.forward(0, &[2, 1])?;
    let mut signals = suspend()?;
    if mpi.rank() == CULPRIT {
        // It wakes up when it is resumed.
        thread::sleep(DEADLINE / 2);
    }
    let forward = layers.forward(0, &[2, 1]);
    signals.wait()?;
    forward?;
    Ok("went on".to_owned())
}

/// Has this process suspended for longer than the deadline, in half a second.
pub fn suspend() -> std::io::Result<Child> {
    let own = std::process::id();
    let asleep = 2 * DEADLINE.as_secs();
    let signals = format!("sleep 0.5; kill -STOP {own}; sleep {asleep}; kill -CONT {own}");
    Command::new("sh").args(["-c", &signals]).spawn()
}

/// A fault, whether the transport all-reduces, and the required outcome.
struct Case {
    fault: &'static str,
    all_reduced: bool,
    /// Text of the other ranks after "error: " and their place. Empty if the launcher ends them
    /// before.
    others: &'static str,
    /// The same of the rank itself.
    culprit: &'static str,
    /// Text that the output must contain.
    reported: &'static str,
    status: Option<i32>,
}

/// Where the others were.
pub const AT: &str = "error: layer 0 \"bn1\", forward, exchange 3: ";

pub fn trials() -> Vec<Trial> {
    let case = |fault, others, culprit, reported, status| Case {
        fault,
        all_reduced: false,
        others,
        culprit,
        reported,
        status,
    };
    let ended = "did not come to the end of the job within 2s";
    let ended_late = "come to the end of the job within 2s, after: ranks [1] did not come within \
        2s; ending the job";
    let late = "rank(s) [1] did not come within 2s";
    let own = "this rank came too late: others had waited for rank(s) [1] for 2s";
    let layer = "layer of rank 1 is 1, expected 0, as on rank 0 and 1 more";
    let shape = "rank 1 failed: x has ";
    let cases = vec![
        case(
            "panics",
            "rank 1 panicked",
            "",
            "rank 1: this rank panicked; ending the job",
            Some(101),
        ),
        case(
            "panics in a thread",
            "rank 1 panicked",
            "",
            "rank 1: this rank panicked; ending the job",
            Some(101),
        ),
        case(
            "panics behind another hook",
            "rank 1 panicked",
            "",
            "rank 1: this rank panicked; ending the job",
            Some(101),
        ),
        case("never comes", late, "", ended_late, Some(87)),
        Case { all_reduced: true, ..case("never comes", late, "", ended_late, Some(87)) },
        case("stops", late, "", ended_late, Some(87)),
        case("comes late", late, own, "", Some(1)),
        Case { all_reduced: true, ..case("comes late", late, own, "", Some(1)) },
        case(
            "exits",
            "rank 1 has left the group",
            "",
            "rank 1: this rank left its program",
            Some(87),
        ),
        case("is killed", "", "", "rank 1", None),
        case("leaves", "rank 1 has left the group", "", "rank 1: left", Some(1)),
        case("leaves before they come", "rank 1 has left the group", "", "rank 1: left", Some(1)),
        case("keeps its layers", "rank 1 has left the group", "", "rank 1: left", Some(1)),
        Case {
            all_reduced: true,
            ..case("leaves", "rank 1 has left the group", "", "rank 1: left", Some(1))
        },
        case("is in another layer", layer, "", "", Some(1)),
        Case { all_reduced: true, ..case("is in another layer", layer, "", "", Some(1)) },
        case(
            "does something else",
            "call of rank 1 is partition into process groups, expected forward",
            "",
            "",
            Some(1),
        ),
        Case {
            all_reduced: true,
            ..case("does something else", "the transport failed: rank ", "", "", Some(1))
        },
        case("has a wrong shape", shape, "", "", Some(1)),
        case("never ends", "", "", ended, Some(87)),
    ];
    let suspended = ["", " all_reduced"].map(|way| {
        let name = format!("suspended_processes_are_not_late{}", way.replace(' ', "_while_"));
        alone(&name, move || {
            Job::new(&format!("suspended{way}"), PROCESSES).run()?.all_say("went on")
        })
    });
    let name = |case: &Case| {
        let way = if case.all_reduced { "_in_an_all_reduce" } else { "" };
        format!("a_rank_that_{}{way}", case.fault.replace(' ', "_"))
    };
    let cases = cases.into_iter().map(|case| alone(&name(&case), move || case.check()));
    cases.chain(suspended).collect()
}

impl Case {
    fn check(&self) -> Result<(), String> {
        let way = if self.all_reduced { " all_reduced" } else { "" };
        let outcome = Job::new(&format!("{}{way}", self.fault), PROCESSES).run()?;
        let took = outcome.took.unwrap_or_default();
        println!(
            "measured: {}{way}: every process gone after {:.2} s",
            self.fault,
            took.as_secs_f64()
        );
        self.judge(&outcome)
    }

    fn judge(&self, outcome: &Outcome) -> Result<(), String> {
        outcome.expect(outcome.status != Some(0), "a failure")?;
        outcome.expect(!outcome.launcher_hung, "the end of mpirun with its ranks")?;
        outcome.expect(
            self.status.is_none() || outcome.status == self.status,
            &format!("status {:?}", self.status),
        )?;
        outcome.expect(outcome.text.contains(self.reported), self.reported)?;
        if !self.others.is_empty() {
            outcome.these_say([0, 2], &format!("{AT}{}", self.others))?;
        }
        if !self.culprit.is_empty() {
            outcome.these_say([CULPRIT], &format!("{AT}{}", self.culprit))?;
        }
        outcome.expect(outcome.took.is_some(), "the time of the fault")
    }
}
