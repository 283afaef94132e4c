//! Starts a job of this program under a launcher, with a limit, and waits until every process of it
//! is gone.
//!
//! The launcher is `mpirun` of Open MPI, or what `SYNCBN_MPI_LAUNCHER` names: it must belong to the
//! MPI library that the tests were built with.

use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::judge::Outcome;

/// The variable that names another launcher.
const LAUNCHER: &str = "SYNCBN_MPI_LAUNCHER";

/// The variable that makes this program a rank.
pub const SCENE: &str = "SYNCBN_MPI_SCENE";
/// The variable with a folder in which every rank writes its last line, in a file of its number.
pub const REPORTS: &str = "SYNCBN_MPI_REPORTS";
/// Longer than any job takes on a loaded machine: beyond it the job hangs, which is a failure.
const LIMIT: Duration = Duration::from_secs(90);
/// Jobs in a row of which the launcher may crash.
const MOST_CRASHES: usize = 2;
/// Jobs in a row of which Open MPI's launcher may hang.
const MOST_HANGS: usize = 1;
/// How long `mpirun` may be there after its ranks, or a rank after it.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// How often to look.
const LOOK: Duration = Duration::from_millis(10);

/// The kind of launcher, by its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OpenMpi,
    /// Of MPICH, and of libraries made from it.
    Hydra,
}

impl Kind {
    /// The launcher and its kind, as it says itself.
    pub fn found() -> Result<(String, Self), String> {
        let name = std::env::var(LAUNCHER).unwrap_or_else(|_| "mpirun".to_owned());
        let said = Command::new(&name).arg("--version").output();
        let said = said.map_err(|error| format!("{name} cannot be started: {error}"))?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        if text.contains("Open MPI") {
            Ok((name, Self::OpenMpi))
        } else if text.contains("HYDRA") {
            Ok((name, Self::Hydra))
        } else {
            Err(format!("{name} is neither Open MPI's nor Hydra: {text}"))
        }
    }

    /// Options that start so many processes.
    fn processes(self, count: usize) -> Vec<String> {
        let count = count.to_string();
        match self {
            Self::OpenMpi => vec!["--oversubscribe".to_owned(), "-np".to_owned(), count],
            Self::Hydra => vec!["-n".to_owned(), count],
        }
    }

    /// Options that give a variable to every process.
    pub fn variable(self, name: &str, value: &str) -> Vec<String> {
        match self {
            Self::OpenMpi => vec!["-x".to_owned(), format!("{name}={value}")],
            Self::Hydra => ["-genv", name, value].map(str::to_owned).to_vec(),
        }
    }

    /// Options that let messages go by TCP alone.
    pub fn tcp(self) -> Vec<String> {
        match self {
            Self::OpenMpi => {
                ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self"].map(str::to_owned).to_vec()
            }
            Self::Hydra => self.variable("UCX_TLS", "tcp,self"),
        }
    }
}

/// A job to be.
#[derive(Clone, Debug, Default)]
pub struct Job {
    scene: String,
    pub processes: usize,
    /// Words before `mpirun`, and options after it.
    pub before: Vec<String>,
    pub options: Vec<String>,
    /// Words before the program.
    wrapper: Vec<String>,
    /// Whether the launcher may outlive the ranks, as when the link to them is cut.
    launcher_may_hang: bool,
}

impl Job {
    pub fn new(scene: &str, processes: usize) -> Self {
        Self { scene: scene.to_owned(), processes, ..Self::default() }
    }

    pub fn options<S: ToString>(mut self, options: &[S]) -> Self {
        self.options.extend(options.iter().map(ToString::to_string));
        self
    }

    /// Every rank's exit status is printed behind its number, as Open MPI calls it.
    pub fn with_statuses(mut self) -> Self {
        let script = "\"$0\"; echo \"rank $OMPI_COMM_WORLD_RANK: exit status $?.\"";
        self.wrapper = ["sh", "-c", script].map(str::to_owned).to_vec();
        self
    }

    /// The launcher may still be there when all ranks have ended.
    pub fn launcher_may_hang(self) -> Self {
        Self { launcher_may_hang: true, ..self }
    }

    /// Runs it to the end of its last process; again where the launcher itself has crashed or hung
    /// at its end, which says nothing of the ranks.
    pub fn run(&self) -> Result<Outcome, String> {
        let (_, launcher) = Kind::found()?;
        let mut crashes = 0;
        let mut hangs = 0;
        loop {
            let outcome = self.run_once()?;
            let may_hang = self.launcher_may_hang || launcher != Kind::OpenMpi;
            let fault = if outcome.launcher_crashed() && crashes < MOST_CRASHES {
                crashes += 1;
                "crashed at its own end"
            } else if outcome.launcher_hung && !may_hang && hangs < MOST_HANGS {
                hangs += 1;
                "hung behind its ranks"
            } else {
                return Ok(outcome);
            };
            println!("measured: {}: mpirun {fault}: once more\n{}", self.scene, outcome.text);
        }
    }

    fn run_once(&self) -> Result<Outcome, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let reported = tempfile::tempdir().map_err(|error| error.to_string())?;
        let limit = LIMIT.as_secs().to_string();
        // `timeout` makes a process group of its own, which no signal to this program's reaches: it
        // ends when this program does.
        let words = ["setpriv", "--pdeathsig", "TERM", "timeout", "--kill-after=5", &limit];
        let words = words.map(str::to_owned).into_iter();
        let (launcher, kind) = Kind::found()?;
        let words = words.chain(self.before.clone()).chain([launcher]);
        let folder = reported.path().display().to_string();
        let words = words
            .chain(kind.processes(self.processes))
            .chain(kind.variable(SCENE, &self.scene))
            .chain(kind.variable(REPORTS, &folder));
        let words: Vec<String> =
            words.chain(self.options.clone()).chain(self.wrapper.clone()).collect();
        let words = [words, vec![program.display().to_string()]].concat();
        let mut command = Command::new(&words[0]);
        // The same as `--allow-run-as-root`, which a job of root needs.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        // Into a file: a pipe would be open for as long as anything of the job is.
        let written = reported.path().join("output");
        let file = fs::File::create(&written).and_then(|file| Ok([file.try_clone()?, file]));
        let [out, err] = file.map_err(|error| error.to_string())?;
        let started = command.args(&words[1..]).stdout(out).stderr(err).spawn();
        let mut launcher =
            started.map_err(|error| format!("{} cannot be started: {error}", words[0]))?;
        let read = || {
            let text = fs::read(&written)
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .unwrap_or_default();
            let lines = (0..self.processes).map(|rank| reported.path().join(rank.to_string()));
            text + &lines.filter_map(|line| fs::read_to_string(line).ok()).collect::<String>()
        };
        let status = self.wait(&mut launcher, &read)?;
        let mut outcome =
            Outcome::new(self.processes, status.and_then(|status| status.code()), read());
        // 124 is the status of `timeout` when the limit has passed.
        if outcome.status == Some(124) {
            return Err(format!("the job hung: it did not end within {LIMIT:?}\n{}", outcome.text));
        }
        outcome.launcher_hung = status.is_none();
        let pids = outcome.numbers("pid");
        let ended = now();
        while let Some(pid) = pids.iter().find(|pid| is_there(**pid)) {
            if now() - ended > AFTERWARDS {
                return Err(format!(
                    "process {pid} is still there {AFTERWARDS:?} after mpirun\n{}",
                    outcome.text
                ));
            }
            thread::sleep(LOOK);
        }
        // Since the fault, where there is one. A launcher that hung has been waited for longer than
        // the ranks.
        let gone = now() - if outcome.launcher_hung { AFTERWARDS } else { Duration::ZERO };
        outcome.took = outcome
            .numbers("fault at")
            .first()
            .map(|&at| gone.saturating_sub(Duration::from_micros(at)));
        Ok(outcome)
    }

    /// Until `mpirun` has ended. One that is there long after all of its ranks is ended, and has no
    /// status.
    fn wait(
        &self,
        launcher: &mut Child,
        read: &impl Fn() -> String,
    ) -> Result<Option<ExitStatus>, String> {
        let mut alone_since = None;
        loop {
            if let Some(status) = launcher.try_wait().map_err(|error| error.to_string())? {
                return Ok(Some(status));
            }
            let pids = Outcome::new(self.processes, None, read()).numbers("pid");
            let alone = pids.len() == self.processes && !pids.into_iter().any(is_there);
            let since = *alone_since.get_or_insert_with(now);
            if !alone {
                alone_since = None;
            } else if now() - since > AFTERWARDS {
                // `timeout` and what it started are one process group.
                let group = format!("-{}", launcher.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = launcher.wait();
                return Ok(None);
            }
            thread::sleep(LOOK);
        }
    }
}

/// Whether a process is there; one that waits for its parent to take note of its end is not.
fn is_there(pid: u64) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// The time by the clock that all processes of a machine share.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
