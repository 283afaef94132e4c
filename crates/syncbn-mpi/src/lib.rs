//! Synchronized batch normalization over processes and machines: the transport of [`syncbn`] over
//! MPI.
//!
//! [`Mpi::initialize`] begins MPI, [`Mpi::world`] gives this process's place among all ranks of the
//! job, a [`Collective`](syncbn::collective::Collective) as any other: layers, process groups and
//! errors are those of [`syncbn`]. `scripts/mpi.sh` builds and runs the examples; the README says
//! what happens when a rank fails, with times.
//!
//! What MPI lacks is added here. Its waits have no end, so nothing here waits inside MPI: messages
//! go from rank to rank without blocking, every wait looks at a deadline, and who is missing is
//! known by name. Its errors are fatal, so they are switched to being returned. And a rank that is
//! lost, by a panic or at the end of its program, ends the job.

mod flat;
mod group;
mod job;
mod live;
mod lost;
mod notice;
mod rank;
mod raw;
mod tree;
mod wait;
mod watchdog;

pub use job::{Mpi, MpiError};
pub use rank::MpiRank;
pub use raw::Failure;

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
