//! Synchronized batch normalization on [wgpu]: several devices, each with a part of a batch, normalize with the mean and
//! variance of the whole batch.
//!
//! A [`DeviceGroup`] drives several [`Device`]s (GPUs of any vendor, virtual devices on one adapter, or the host) from one
//! caller. Compute shaders reduce every channel on each device, the host merges the partial statistics exactly, and every
//! device normalizes with the result: the same numbers as batch normalization of the inputs concatenated along the batch.
//!
//! ```
//! use syncbn::{Device, DeviceGroup, SyncBatchNormConfig};
//!
//! # pollster::block_on(async {
//! // Two ranks on the host; `DeviceGroup::auto` takes the GPUs of the machine.
//! let mut group = DeviceGroup::new(SyncBatchNormConfig::torch(1), vec![Device::host(), Device::host()])?;
//! let [a, b] = [&group.devices()[0], &group.devices()[1]];
//! // One channel; three samples on rank 0, one on rank 1.
//! let inputs = [a.upload(&[3, 1], &[0.0, 2.0, 4.0])?, b.upload(&[1, 1], &[6.0])?];
//! let forward = group.forward_train(&inputs).await?;
//! assert_eq!(forward.report.global.channels()[0].mean, 3.0);
//! // (6 − 3) / √5, as in the batch [0, 2, 4, 6].
//! assert!((forward.outputs[1].to_vec().await?[0] - 1.341_64).abs() < 1e-5);
//! # Ok::<(), syncbn::Error>(())
//! # }).unwrap();
//! ```

pub use wgpu;

mod checksum;
pub mod collective;
mod config;
mod coordinator;
mod device;
mod dtype;
mod engine;
mod epilogue;
mod error;
mod fast_paths;
mod gpu;
mod group;
mod host;
mod layer;
#[doc(hidden)]
pub mod low_level;
pub mod plan;
pub mod probe;
pub mod reference;
mod resident;
pub mod shaders;
mod shape;
mod state;
pub mod stats;
mod tensor;

pub use collective::{LocalGroup, ProcessGroup};
pub use config::{
    AffineGradient, Initializer, MindSporeArguments, Momentum, RunningVariance, SyncBatchNormConfig, TorchArguments,
};
pub use device::Device;
pub use dtype::{DType, Element};
pub use epilogue::Epilogue;
pub use error::{
    ArgumentError, BatchError, ConfigError, Error, ExchangeError, GpuError, GroupError, LimitError, ShapeError,
    StateError,
};
pub use fast_paths::FastPaths;
pub use gpu::adapters;
pub use group::{
    Backward, BackwardReport, DeviceGroup, Forward, ForwardReport, ForwardRequest, GradTargets, InPlace, Inputs,
    PhaseTimes, SavedForward,
};
pub use layer::{Input, LayerBackward, LayerForward, LayerGradTargets, LayerRequest, SyncBatchNorm};
pub use resident::{ResidentBackward, ResidentForward, ResidentGroup, ResidentSaved};
pub use shape::{Layout, Shape, Strides};
pub use state::{LoadOptions, Naming, StateDict};
pub use tensor::Tensor;

/// The example of the README, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples of the guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/GUIDE.md")]
struct Guide;
