//! Batch normalization for [Burn](burn), by the kernels of [`syncbn`]: fewer kernels on one GPU, or
//! one mean and variance over several ranks.
//!
//! [`BatchNorm`] and [`SyncBatchNorm`] replace Burn's `BatchNorm`. They have the same fields,
//! record, defaults and behaviour. They are made on the device of a [`Rank`], which holds a Burn
//! device, its wgpu handles and a [`ProcessGroup`](syncbn::ProcessGroup). The kernels of `syncbn`
//! work on Burn's buffers, and ranks exchange statistics through any of its transports.
//!
//! ```no_run
//! use burn::tensor::Tensor;
//! use syncbn_burn::syncbn::{Device, ProcessGroup};
//! use syncbn_burn::{BatchNorm, BatchNormConfig, Rank};
//!
//! // was: Device::default()
//! let rank = Rank::open(&pollster::block_on(Device::adapters())[0], ProcessGroup::single())?;
//! let device = rank.device().autodiff();
//! let norm: BatchNorm = BatchNormConfig::new(64).init(&device);
//! let y = norm.forward(Tensor::<4>::ones([8, 64, 32, 32], &device));
//! # Ok::<(), syncbn_burn::Error>(())
//! ```
//!
//! The [README] has an example with several ranks, Burn's trainer, PyTorch's files and the limits.
//!
//! A [`BatchNorm`], and a [`SyncBatchNorm`] of a single rank, normalize on their device: each pass
//! is one submission, nothing is read back and nothing waits.
//!
//! # How it shares a device with Burn
//! * **No copy.** Kernels bind the slices of Burn's pooled buffers. A tensor may be dense (N, C,
//!   ...), or have its channels last in memory, as Burn's convolutions return it. Burn copies
//!   tensors with other strides first.
//! * **In order.** Burn queues its work. A request for a buffer submits the queued work of its
//!   tensor and of this thread. The layer requests its buffers immediately before it submits to the
//!   same queue, and it writes fresh memory only, so no work overtakes another.
//! * **Where ranks wait.** Ranks wait on the thread that calls `forward` or `backward`. While they
//!   wait, no lock of Burn is held, except in backward that of the loss's autodiff graph. They
//!   never wait within an operation, because Burn runs operations on the thread that serves a
//!   device, and a wait there would stop everybody. The autodiff graph and, with the feature
//!   `fusion`, the fused stream contain an operation that returns a tensor computed before. With
//!   fusion the stream is drained up to the input first.
//! * **Threads.** Each rank has its own thread and its own parameters: make or load a model per
//!   rank, or `fork` it. Ranks that share parameter nodes (a `clone` moved to another device) wait
//!   for Burn's lock of the common graph and for each other, and get an error when the group's
//!   deadline passes.
//!
//! # When a rank fails
//! All others get an error that names it, at once or within the group's deadline.
//! [`Normalization::try_forward`] and [`try_backward`] return it. `forward` and `backward` panic
//! with its message, as Burn's own operations do. A module that returns an error notifies the other
//! ranks at once. They notice a failure elsewhere, such as a batch that could not be read, when the
//! rank ends or their deadline passes, or at once if the program calls
//! [`ProcessGroup::abort`](syncbn::ProcessGroup::abort).
//!
//! [README]: https://crates.io/crates/syncbn-burn

mod activation;
mod config;
mod convert;
mod error;
#[cfg(feature = "dataset")]
mod even;
mod gradients;
mod layer;
mod memory;
mod module;
mod operation;
mod pass;
mod rank;

pub use activation::Activation;
pub use config::{BatchNormConfig, SyncBatchNormConfig};
pub use convert::Convert;
pub use error::Error;
#[cfg(feature = "dataset")]
pub use even::{EvenLoader, WorkerBatch};
pub use gradients::{average_gradients, sum_gradients};
pub use module::{BatchNorm, Normalization, OfGroup, OfRank, Scope, SyncBatchNorm, try_backward};
pub use rank::{Rank, setup};
pub use syncbn;
pub use wgpu;

/// The example of the README, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
