//! Two machines: network namespaces of this one, each with an address and a name of its own, and a
//! link between them that can be cut. If the system does not allow that, the same jobs run over TCP
//! by the loopback device.

use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;

use crate::alone;
use crate::faults::{self, DEADLINE};
use crate::launch::{Job, Kind, now};
use crate::scenes::Reported;

/// The variable with the name of the link, for the rank that cuts it.
const LINK: &str = "SYNCBN_MPI_LINK";
/// From a block that is set aside for tests of networks.
const ADDRESSES: [&str; 2] = ["198.18.77.1", "198.18.77.2"];
const NETWORK: &str = "198.18.77.0/24";

/// Of Open MPI's launcher: Hydra finds its way between the namespaces by other means, and its jobs
/// go by TCP on this machine.
pub fn trials(launcher: Kind) -> Vec<Trial> {
    let mut trials = vec![
        alone("two_machines_have_the_bits_of_one_process", || {
            over_tcp(Job::new("bits", 4), |job| job.run()?.all_say("the bits of one process"))
        }),
        alone("the_transport_conforms_between_two_machines", || {
            over_tcp(Job::new("conformance", 4), |job| job.run()?.all_say("passed the suite"))
        }),
    ];
    if launcher == Kind::OpenMpi {
        trials.push(alone("a_link_that_is_cut_is_an_error_on_both_machines", || {
            let Ok(machines) = Machines::new() else {
                println!("no network namespaces here: a link cannot be cut");
                return Ok(());
            };
            let job = Job::new("cuts the link", 4).launcher_may_hang();
            let outcome = machines.job(job).run()?;
            let took = outcome.took.unwrap_or_default();
            let launcher = if outcome.launcher_hung { "but mpirun" } else { "and mpirun" };
            println!(
                "measured: cuts the link: every rank {launcher} gone after {:.2} s",
                took.as_secs_f64()
            );
            outcome.expect(outcome.status != Some(0), "a failure")?;
            let late = |ranks: &str| {
                format!("{}rank(s) {ranks} did not come within {DEADLINE:?}", faults::AT)
            };
            outcome.these_say([0, 1], &late("[2, 3]"))?;
            outcome.these_say([2, 3], &late("[0, 1]"))
        }));
    }
    trials
}

/// Runs a job of two machines, or over the loopback device where there can be none.
fn over_tcp(job: Job, run: impl Fn(Job) -> Result<(), String>) -> Result<(), String> {
    let (_, launcher) = Kind::found()?;
    if launcher == Kind::Hydra {
        return run(job.options(&launcher.tcp()));
    }
    match Machines::new() {
        Ok(machines) => run(machines.job(job)),
        Err(why) => {
            println!("no network namespaces here, TCP by the loopback device instead: {why}");
            run(job.options(&launcher.tcp()))
        }
    }
}

/// The link goes down in the middle, cut by rank 0.
pub fn cut_link() -> Reported {
    let link = std::env::var(LINK)?;
    println!("rank 0: fault at {}", now().as_micros());
    command(&format!("ip link set {link} down"))?;
    Ok(String::new())
}

/// The namespaces, removed with the value.
struct Machines {
    names: [String; 2],
    links: [String; 2],
    agent: PathBuf,
}

impl Machines {
    fn new() -> Result<Self, String> {
        let id = std::process::id();
        let names = ["a", "b"].map(|side| format!("syncbn-{id}-{side}"));
        // A device's name has at most 15 characters.
        let links = ["a", "b"].map(|side| format!("sbn{id}{side}"));
        let agent = std::env::temp_dir().join(format!("syncbn-{id}-agent"));
        let machines = Self { names, links, agent };
        machines.make()?;
        Ok(machines)
    }

    fn make(&self) -> Result<(), String> {
        let [a, b] = &self.names;
        let [link_a, link_b] = &self.links;
        self.names.iter().try_for_each(|name| command(&format!("ip netns add {name}")))?;
        command(&format!("ip link add {link_a} netns {a} type veth peer name {link_b} netns {b}"))?;
        for ((name, link), address) in self.names.iter().zip(&self.links).zip(ADDRESSES) {
            command(&format!("ip -n {name} addr add {address}/24 dev {link}"))?;
            command(&format!("ip -n {name} link set {link} up"))?;
            command(&format!("ip -n {name} link set lo up"))?;
        }
        // Replaces ssh for mpirun. Its arguments are the host and the words of a command.
        let inside = self.inside(1).join(" ");
        let script = format!("#!/bin/sh\nshift\nexec {inside} sh -c \"hostname machine-b; $*\"\n");
        std::fs::write(&self.agent, script).map_err(|error| error.to_string())?;
        command(&format!("chmod +x {}", self.agent.display()))
    }

    /// The words before a command that run it in a namespace, with its own host name.
    fn inside(&self, machine: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.names[machine], "unshare", "--uts"]
            .map(str::to_owned)
            .to_vec()
    }

    fn job(&self, mut job: Job) -> Job {
        let half = job.processes / 2;
        let hosts = ADDRESSES.map(|address| format!("{address}:{half}")).join(",");
        job.before = self.inside(0);
        let agent = self.agent.display().to_string();
        let link = format!("{LINK}={}", self.links[0]);
        let options: [&[&str]; 6] = [
            &["--host", &hosts, "-x", &link],
            &["--mca", "plm_rsh_agent", &agent],
            &["--mca", "pml", "ob1"],
            &["--mca", "btl", "tcp,self"],
            &["--mca", "btl_tcp_if_include", NETWORK],
            &["--mca", "oob_tcp_if_include", NETWORK],
        ];
        job.options(&options.concat())
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
            // Open MPI's daemons, where they were cut off from each other. What was not made is not
            // there to be removed.
            let left = Command::new("ip").args(["netns", "pids", name]).output();
            let left = left
                .map(|left| String::from_utf8_lossy(&left.stdout).into_owned())
                .unwrap_or_default();
            for pid in left.lines() {
                let _ = command(&format!("kill -KILL {pid}"));
            }
            let _ = command(&format!("ip netns del {name}"));
        }
        let _ = std::fs::remove_file(&self.agent);
    }
}

fn command(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split(' ').collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .map_err(|error| format!("{line}: {error}"))?;
    let reported = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{line}: {}", reported.trim())) }
}
