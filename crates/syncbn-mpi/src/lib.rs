//! Synchronized batch normalization over processes and machines: the transport of [`syncbn`] over
//! MPI.
//!
//! [`Mpi::initialize`] begins MPI. [`Mpi::world`] returns this process's rank of the job as a
//! [`Collective`](syncbn::collective::Collective). Layers, process groups and errors are those of
//! [`syncbn`].
//!
//! ```no_run
//! use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};
//! use syncbn_mpi::Mpi;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mpi = Mpi::initialize()?; // dropped last
//!     let group = ProcessGroup::new(mpi.world()?);
//!     let device = Device::host();
//!     let config = BatchNormConfig::torch(1);
//!     let layer = SyncBatchNorm::new(config, [device.clone()])?.in_group(&group)?;
//!     let x = device.upload(&[2, 1], &[0.0f32, mpi.rank() as f32])?;
//!     pollster::block_on(layer.forward_train(&x))?;
//!     Ok(())
//! }
//! ```
//!
//! `scripts/mpi.sh` builds and runs the examples of the repository. The README says how to start
//! jobs, and what each rank gets when another one fails.
//!
//! The crate changes three things in MPI:
//! * **Waits have deadlines.** MPI's own waits have none, so nothing here waits inside MPI.
//!   Messages do not block, and errors name the missing ranks.
//! * **Errors are returned.** MPI's default is to end the program.
//! * **A lost rank ends the job.** A rank is lost by a panic, or if its program ends before MPI.

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
