//! Synchronized batch normalization on [wgpu]: several devices, each with a part of a batch,
//! normalize with the mean and variance of the whole batch.
//!
//! Two layers take the same requests. [`BatchNorm`] is for one GPU: nothing waits, nothing is read
//! back, and a pass may become part of the application's own submission. [`SyncBatchNorm`] drives
//! one or several [`Device`]s (GPUs of any vendor, virtual devices on one adapter, or the host),
//! alone or in a [`ProcessGroup`] with other threads or processes: compute shaders reduce every
//! channel on each device, the host merges the partial statistics exactly, and every device
//! normalizes with the result.
//!
//! ```
//! use syncbn::{BatchNormConfig, Device, SyncBatchNorm};
//!
//! # pollster::block_on(async {
//! // Two ranks on the host; `Device::all` gives the GPUs of the machine.
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
mod gpu;
mod host;
pub mod joint;
mod layer;
#[doc(hidden)]
pub mod low_level;
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
mod workspace;

pub use collective::ProcessGroup;
pub use config::BatchNormConfig;
pub use device::Device;
pub use error::Error;
pub use layer::SyncBatchNorm;
pub use on_device::BatchNorm;
pub use request::{Backward, Forward, Gradients, Normalized};
pub use saved::Saved;
pub use tensor::{DType, Layout, Tensor};
pub use workspace::Workspace;

/// The example of the README, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples of the guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/GUIDE.md")]
struct Guide;
