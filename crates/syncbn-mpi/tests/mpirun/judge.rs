//! The output of a job's ranks, and the comparison with the expected output.
//!
//! A rank prints lines `rank 2: …`. `mpirun` may mix lines of several ranks, so the whole text is
//! searched for a line.

use std::time::Duration;

/// The outcome of a job.
#[derive(Clone, Debug)]
pub struct Outcome {
    processes: usize,
    /// The exit status of `mpirun`.
    pub status: Option<i32>,
    pub text: String,
    /// Whether `mpirun` was there long after its last rank.
    pub launcher_hung: bool,
    /// From the fault to the end of the last process.
    pub took: Option<Duration>,
}

impl Outcome {
    pub fn new(processes: usize, status: Option<i32>, text: String) -> Self {
        Self { processes, status, text, launcher_hung: false, took: None }
    }

    /// The numbers that ranks have printed behind `what`.
    pub fn numbers(&self, what: &str) -> Vec<u64> {
        let prefix = format!("{what} ");
        let after = self.text.split(&prefix).skip(1);
        after
            .filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
            .collect()
    }

    /// Whether `mpirun` crashed when its ranks had ended: that of Open MPI 4.1.4 does now and then
    /// on a busy machine, and prints where.
    pub fn launcher_crashed(&self) -> bool {
        self.text.lines().any(|line| line.contains("(PMIx_server_finalize+"))
    }

    /// Whether a rank has printed a line that begins so.
    pub fn says(&self, rank: usize, what: &str) -> bool {
        self.text.contains(&format!("rank {rank}: {what}"))
    }

    /// All went well, and every rank has said this.
    pub fn all_say(&self, what: &str) -> Result<(), String> {
        self.expect(self.status == Some(0), "status 0")?;
        self.these_say(0..self.processes, what)
    }

    /// These ranks have said this.
    pub fn these_say(
        &self,
        ranks: impl IntoIterator<Item = usize>,
        what: &str,
    ) -> Result<(), String> {
        for rank in ranks {
            self.expect(self.says(rank, what), &format!("rank {rank}: {what}"))?;
        }
        Ok(())
    }

    pub fn expect(&self, holds: bool, what: &str) -> Result<(), String> {
        if holds {
            return Ok(());
        }
        Err(format!("status {:?}, expected {what}; the job printed:\n{}", self.status, self.text))
    }
}
