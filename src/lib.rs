//! Synchronized batch normalization, on GPUs through [wgpu] and on the CPU.
//!
//! In data-parallel training every device holds a part of the batch. A layer of this crate
//! normalizes each part with the mean and the variance of the whole batch, in forward and in
//! backward. The result is that of ordinary batch normalization of all parts concatenated.
//!
//! ```
//! use syncbn::{BatchNormConfig, Device, SyncBatchNorm};
//!
//! # pollster::block_on(async {
//! // Two ranks on the host (CPU); `Device::all` gives the GPUs of the machine.
//! let [a, b] = [Device::host(), Device::host()];
//! let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [a.clone(), b.clone()])?;
//! // One channel; three samples on rank 0, one on rank 1.
//! let x = [a.upload(&[3, 1], &[0.0f32, 2.0, 4.0])?, b.upload(&[1, 1], &[6.0f32])?];
//! let forward = bn.forward_train(&x).await?;
//! // (6 − 3) / √5, as in the batch [0, 2, 4, 6].
//! assert!((forward.output[1].to_vec().await?[0] - 1.341_64).abs() < 1e-5);
//! # Ok::<(), syncbn::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Where to go
//!
//! **Begin with the [guide].** It shows each way to call a layer by an example.
//!
//! | you want | look at |
//! |---|---|
//! | the usual ways to call a layer | the [guide] |
//! | a layer on one GPU, also in your own command encoder | [`BatchNorm`] |
//! | a layer over several devices, threads or processes | [`SyncBatchNorm`], [`ProcessGroup`] |
//! | inputs and outputs of a pass | [`Forward`], [`Backward`] |
//! | to open devices, to move or wrap data | [`Device`], [`Tensor`] |
//! | the settings of PyTorch and MindSpore | [`BatchNormConfig`], [`config`] |
//! | checkpoints | [`state`] |
//! | statistics as values, and the steps of a pass | [`stats`], [the three steps] |
//! | several layers in one message | [`joint`] |
//! | errors | [`error`] |
//! | a transport of your own | [`collective`], [the protocol](guide::protocol) |
//! | how other implementations differ | [the comparison](guide::compare) |
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `vulkan`, `metal`, `dx12`, `webgpu` | yes | that backend of wgpu; each implies `gpu` |
//! | `gpu` | | GPUs, with the backends that the application gives to wgpu |
//! | `host` | yes | `Device::host`: the same kernels on the host (CPU), with rayon and pulp |
//! | `safetensors` | yes | states as files |
//! | `serde` | yes | settings and statistics are `Serialize` and `Deserialize` |
//! | `tracing` | yes | events, and a span for each pass and each exchange |
//!
//! Without `gpu` no part of wgpu is compiled: ranks on the host alone, in threads, processes or
//! machines.
//!
//! # Tracing
//!
//! With the feature `tracing` the crate reports its work to a subscriber of the
//! [`tracing`](https://docs.rs/tracing) crate.
//!
//! | target | level | |
//! |---|---|---|
//! | `syncbn::pass` | DEBUG | a span `pass` for each pass of a layer, or of several in one call |
//! | `syncbn::exchange` | DEBUG | a span `exchange` for each message of a group, within that of its pass |
//! | `syncbn::device` | INFO | the devices that were opened |
//! | `syncbn::probe` | WARN | a defect of a driver |
//! | `syncbn::memory` | TRACE | memory that is allocated on a device, with `size_bytes` |
//! | `syncbn::cost` | TRACE | `what`: a submission, a bind group, a pipeline, a lock, or a fused pass of the host |
//!
//! Spans have these fields: `phase`; `layer`, the names of the layers; `rank`, that of the process
//! or thread in its outermost group; `bytes`, of all x of the pass, or of this rank's message;
//! `micros`, the time from the beginning to the end, in µs. A pass also has `ranks`, the number of
//! its tensors x. `micros` is missing if a future is dropped before its end.
//!
//! [the three steps]: guide#the-three-steps

#![cfg_attr(docsrs, feature(doc_cfg))]
// Futures within futures: newer compilers count how deep their layouts go.
#![recursion_limit = "256"]
// Code for a GPU, or for the host, is compiled without that feature too. It is never reached then,
// because its device cannot be made.
#![cfg_attr(
    not(all(feature = "gpu", feature = "host", feature = "safetensors")),
    allow(dead_code, unreachable_code, unused_variables)
)]

#[cfg(feature = "gpu")]
pub use wgpu;

mod base;
mod checksum;
pub mod collective;
pub mod config;
pub mod device;
mod dtype;
mod engine;
mod epilogue;
pub mod error;
mod exchange;
mod fast_paths;
#[cfg_attr(not(feature = "gpu"), path = "gpu/absent.rs")]
mod gpu;
pub mod guide;
#[cfg_attr(not(feature = "host"), path = "host/absent.rs")]
mod host;
pub mod joint;
mod layer;
#[doc(hidden)]
pub mod low_level;
#[cfg(feature = "gpu")]
mod on_device;
mod plan;
mod probe;
mod request;
mod saved;
mod shaders;
mod shape;
pub mod state;
pub mod stats;
pub mod tensor;
mod timer;
#[cfg_attr(not(feature = "tracing"), path = "trace/absent.rs")]
mod trace;
#[cfg(feature = "gpu")]
mod workspace;

pub use collective::ProcessGroup;
pub use config::BatchNormConfig;
pub use device::Device;
pub use error::Error;
pub use layer::{GradientRounds, StatisticsRounds, SyncBatchNorm};
#[cfg(feature = "gpu")]
pub use on_device::BatchNorm;
pub use request::{
    Backward, DoubleBackward, DoubleGradients, Forward, Gradients, Lengths, Normalized,
};
pub use saved::Saved;
pub use tensor::{DType, Layout, Tensor};
#[cfg(feature = "gpu")]
pub use workspace::Workspace;

/// The example of the README, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
