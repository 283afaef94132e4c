//! Synchronized batch normalization over processes and machines: the transport of [`syncbn`] over
//! MPI.
//!
//! [`Mpi::initialize`] begins MPI, [`Mpi::world`] gives this process's place among all ranks of the
//! job, a [`Collective`](syncbn::collective::Collective) as any other: layers, process groups and
//! errors are those of [`syncbn`]. `scripts/mpi.sh` builds and runs the examples. The README
//! describes the failure of a rank, with times.
//!
//! The crate adds three things to MPI. MPI's waits have no end, so nothing here waits inside MPI:
//! messages do not block, every wait has a deadline, and errors name missing ranks. MPI's errors
//! are fatal, so they are switched to being returned. A rank that is lost, by a panic or at the end
//! of its program, ends the job.

mod awake;
mod end;
mod flat;
mod group;
mod hook;
mod inbox;
mod job;
mod live;
mod lost;
mod meeting;
mod notice;
mod rank;
mod raw;
mod survive;
mod tag;
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
