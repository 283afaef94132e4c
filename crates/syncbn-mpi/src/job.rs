//! The job: the beginning and the end of MPI in this process, and the end of all processes if one
//! is lost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mpi::Threading;
use mpi::environment::{self, Universe};
use mpi::topology::{Communicator, SimpleCommunicator};

use crate::group::Group;
use crate::rank::MpiRank;
use crate::raw::{self, Comm, Failure};
use crate::watchdog::Watchdog;
use crate::{awake, end, hook, live, lost};

/// How long ranks wait for each other at the beginning and at the end of a job in which nothing has
/// failed: longer than what one of them does alone there, such as reading data or saving a model.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long they wait at the end after a failure: enough to report it for all that learn of it in
/// their next exchange.
const GRACE: Duration = Duration::from_secs(2);
/// Time for MPI to end once all ranks have come to it. It only closes connections then.
const FINALIZATION: Duration = Duration::from_secs(30);
/// How often to look whether all have come.
pub(crate) const LOOK: Duration = Duration::from_millis(1);
/// The smallest number of ranks that all-reduce statistics and sums along the tree. Measured on one
/// machine (docs/SCALING.md), the tree takes less time than gathering from 16 ranks on for 256
/// channels, and from fewer than 8 on for 2,048. With fewer ranks gathering takes fewer steps, and
/// at worst three times the time.
const TREE_FROM: usize = 9;

/// Whether there is an [`Mpi`] in this process.
static HELD: AtomicBool = AtomicBool::new(false);

/// Why there is no MPI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MpiError {
    /// It was begun before, in this process, by this crate or another.
    #[error("MPI has been initialized in this process before; a process can do it once")]
    Initialized,
    /// The library does not allow calls from several threads.
    #[error(
        "the MPI library allows {found:?} threading, Multiple is needed: it was built without \
        support for threads"
    )]
    Threading {
        /// The threading that it allows.
        found: Threading,
    },
    /// MPI is to be attached to, and has not begun or has ended.
    #[error("MPI is not running in this process: begin it, or call Mpi::initialize")]
    NotRunning,
    /// The launcher has started several processes, and MPI knows of one: the launcher belongs to
    /// another MPI library than the program. Every process would be a job of its own.
    #[error(
        "{variable} is {found}, but MPI knows of one process: start the program with the launcher \
        of the MPI library that it was built with"
    )]
    Launcher {
        /// The variable in which the launcher says how many processes there are.
        variable: &'static str,
        /// Its value.
        found: u64,
    },
    /// A call failed.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// MPI in this process, from its initialization to its end. One value per process, to be dropped
/// last.
///
/// Its end never hangs. When it is dropped, the ranks wait for each other: ten minutes, or two
/// seconds after a failed exchange. If a rank does not come by then, it is lost, and the whole job
/// ends with status 87.
pub struct Mpi {
    /// `None` if the program ends MPI itself.
    universe: Option<Universe>,
    /// The ranks wait for each other on it at the end, because a failed rank may end while others
    /// are anywhere. Process groups are made by it too.
    end: Arc<Comm>,
    patience: Duration,
}

impl Mpi {
    /// Begins MPI, and lets a panic of any thread, or a program that ends before MPI has, end the
    /// job: otherwise the other ranks would wait for this one. They are notified first.
    ///
    /// It happens before a panic unwinds, so one that the program would catch ends the job too.
    ///
    /// # Errors
    /// [`MpiError`].
    pub fn initialize() -> Result<Self, MpiError> {
        let begun = environment::initialize_with_threading(Threading::Multiple);
        let (universe, found) = begun.ok_or(MpiError::Initialized)?;
        Self::begin(Some(universe), found)
    }

    /// Attaches to an MPI that the program, or another library, has begun with
    /// [`Threading::Multiple`](mpi::Threading::Multiple) and ends itself, after this value is
    /// dropped. Otherwise as [`initialize`](Self::initialize): the ranks wait for each other when
    /// it is dropped, and a panic ends the job.
    ///
    /// # Errors
    /// [`MpiError`].
    pub fn attach() -> Result<Self, MpiError> {
        if !environment::is_initialized() || environment::is_finalized() {
            return Err(MpiError::NotRunning);
        }
        Self::begin(None, environment::threading_support())
    }

    fn begin(universe: Option<Universe>, found: Threading) -> Result<Self, MpiError> {
        if found != Threading::Multiple {
            return Err(MpiError::Threading { found });
        }
        let world = SimpleCommunicator::world();
        if world.size() == 1
            && let Some((variable, found)) = launched()
        {
            return Err(MpiError::Launcher { variable, found });
        }
        if HELD.swap(true, Ordering::AcqRel) {
            return Err(MpiError::Initialized);
        }
        raw::begin();
        match Comm::duplicate(&world, PATIENCE) {
            Ok(end) => {
                lost::install();
                let end = Arc::new(end);
                end::begin(end.clone());
                Ok(Self { universe, end, patience: PATIENCE })
            }
            Err(failure) => {
                raw::end();
                HELD.store(false, Ordering::Release);
                Err(failure.into())
            }
        }
    }

    /// The same with another limit for how long ranks wait for each other at the beginning and at
    /// the end of a job in which nothing has failed (ten minutes by default).
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same with a call of `save` before a failed job ends, in which the program can save its
    /// state. All ranks must set it, with the same limit.
    ///
    /// It is called at most once, with the first failure, in a thread of its own: when this value
    /// is dropped after an exchange has failed, or before this rank ends the job. The ranks wait
    /// for each other until all have saved, or the limit has passed. It is not called in a process
    /// that panicked, that left its program, or that is killed.
    ///
    /// ```no_run
    /// use std::sync::{Arc, Mutex};
    /// use std::time::Duration;
    /// use syncbn_mpi::Mpi;
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     // What the last step gave, which the training replaces after every step.
    ///     let state = Arc::new(Mutex::new(vec![0u8; 4]));
    ///     let saved = state.clone();
    ///     let mpi = Mpi::initialize()?;
    ///     let path = format!("after-failure-{}.state", mpi.rank());
    ///     let mpi = mpi.before_end(Duration::from_secs(60), move |why| {
    ///         eprintln!("{path} is written, because {why}");
    ///         if let Ok(state) = saved.lock() {
    ///             let _ = std::fs::write(path, &*state);
    ///         }
    ///     });
    ///     // … the training, which returns the error of an exchange.
    ///     drop(mpi);
    ///     Ok(())
    /// }
    /// ```
    pub fn before_end(self, limit: Duration, save: impl FnOnce(&str) + Send + 'static) -> Self {
        hook::set(limit, save);
        self
    }

    /// This process's rank of the job.
    pub fn rank(&self) -> usize {
        self.end.rank
    }

    /// Processes of the job.
    pub fn size(&self) -> usize {
        self.end.size
    }

    /// The transport among all ranks of the job. Every rank must call it, and as often as the
    /// others: each call makes a transport of its own.
    ///
    /// # Errors
    /// [`MpiError::Failure`] where some rank does not come, within the limit of
    /// [`with_patience`](Self::with_patience).
    pub fn world(&self) -> Result<MpiRank, MpiError> {
        self.world_with_tree_from(TREE_FROM)
    }

    /// As [`world`](Self::world), but statistics are all-reduced along the tree from this number of
    /// ranks on (9 by default), and gathered with fewer. All ranks must give the same number.
    /// Results have the same bits either way. The network decides which is faster.
    ///
    /// # Errors
    /// As [`world`](Self::world).
    pub fn world_with_tree_from(&self, ranks: usize) -> Result<MpiRank, MpiError> {
        let comm = Comm::duplicate(&SimpleCommunicator::world(), self.patience)?;
        let all = (0..comm.size).collect();
        Ok(MpiRank::new(live::keep(Group::new(comm, self.end.clone(), all, ranks))))
    }
}

/// The processes that a launcher says it has started, if more than one. A job of Slurm says so in
/// `SLURM_STEP_NUM_TASKS` to those that srun starts, and only to them.
fn launched() -> Option<(&'static str, u64)> {
    // The launcher nearest to the program comes first: its word counts.
    let said = |variable| Some((variable, std::env::var(variable).ok()?.parse().ok()?));
    let mut variables = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"].into_iter();
    variables.find_map(said).filter(|(_, found)| *found > 1)
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank()).field("size", &self.size()).finish()
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if thread::panicking() && !end::is_given_up() {
            lost::unwinds();
        }
        live::leave_all();
        if let Some(first) = live::failure() {
            hook::call(&first);
        }
        let began = awake::now();
        let comm = end::comm().unwrap_or_else(|| self.end.clone());
        let ended = comm.barrier().and_then(|mut barrier| {
            while !barrier.is_done()? && !end::is_left_behind(&comm)? {
                let has_failed = live::failure().is_some();
                // After a failure others may be saving.
                let grace = hook::limit().map_or(GRACE, |limit| limit.max(GRACE));
                let limit = if has_failed { grace.min(self.patience) } else { self.patience };
                if awake::now().saturating_sub(began) >= limit {
                    return Ok(Some(limit));
                }
                thread::sleep(LOOK);
            }
            Ok(None)
        });
        match ended {
            Ok(None) => {}
            Ok(Some(limit)) => {
                let first = live::failure().map(|first| format!(", after: {first}"));
                let first = first.unwrap_or_default();
                end::give_up(
                    &format!(
                        "another rank did not come to the end of the job within {limit:?}{first}"
                    ),
                    end::EXIT_GIVEN_UP,
                );
            }
            Err(failure) => end::give_up(&failure.to_string(), end::EXIT_GIVEN_UP),
        }
        raw::end();
        live::forget_failure();
        hook::forget();
        let has_lost_ranks = end::forget();
        HELD.store(false, Ordering::Release);
        let Some(universe) = self.universe.take() else { return };
        if has_lost_ranks {
            // MPI would wait for them.
            std::mem::forget(universe);
            return;
        }
        let _limit = Watchdog::new(FINALIZATION, "the end of MPI");
        drop(universe);
    }
}
