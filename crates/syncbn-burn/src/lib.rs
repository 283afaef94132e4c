//! Batch normalization for [Burn](burn): its `BatchNorm` by fewer kernels on one GPU, or with one
//! mean and variance over every rank.
//!
//! [`BatchNorm`] and [`SyncBatchNorm`] stand where Burn's `BatchNorm` stood, with the same fields,
//! record, defaults and behaviour. They are made on the device of a [`Rank`], which joins a Burn
//! device to its wgpu handles and to a [`ProcessGroup`](syncbn::ProcessGroup). Below them works
//! `syncbn`: kernels of its own on Burn's buffers, an exact merge, any transport among the ranks.
//!
//! A rank alone, and a [`BatchNorm`] in any group, normalizes on its device: one submission per
//! pass, nothing is read back and nothing waits.
//!
//! # How it shares a device with Burn
//! * **No copy.** Kernels bind the slices of Burn's pooled buffers in which tensors lie, of dense
//!   (N, C, ...) or, as Burn's convolutions give it, of memory in which the channels lie last.
//!   Other strides are copied by Burn first.
//! * **In order.** Burn queues its work. Asking for a buffer submits what is queued for it and by
//!   this thread; buffers are asked for immediately before the layer submits to the same queue, and
//!   only fresh memory is written, so nothing overtakes.
//! * **Where ranks wait.** On the thread that calls `forward` or `backward`, with nothing of Burn's
//!   locked but, in backward, the autodiff graph of the loss. Not within an operation: Burn runs
//!   operations on the thread that serves a device, which a wait would stall for everybody. What
//!   the autodiff graph and, with the feature `fusion`, the fused stream hold is an operation that
//!   hands over a tensor computed already; with fusion the stream is drained up to the input first.
//! * **Threads.** One per rank, and parameters of its own in each: make or load a model per rank,
//!   or `fork` it. Ranks that share parameter nodes (a `clone` moved to another device) wait for
//!   Burn's lock of the common graph and for each other, and get an error when the group's deadline
//!   passes.
//!
//! # When a rank fails
//! All others get an error that names it, at once or within the group's deadline:
//! [`Normalization::try_forward`] and [`try_backward`] return it, `forward` and `backward` panic
//! with its message, as Burn's own operations do. A module that returns an error notifies the
//! other ranks at once. They notice a failure elsewhere, such as a batch that could not be read,
//! when the rank ends or their deadline passes, or at once if the program calls
//! [`ProcessGroup::abort`](syncbn::ProcessGroup::abort).

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
