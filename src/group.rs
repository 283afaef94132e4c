//! `DeviceGroup`: one caller drives several devices. There is no rendezvous, so nothing can wait for a peer.

mod backward;
mod check;
mod forward;
mod saved;

pub use backward::{Backward, BackwardReport, GradTargets};
pub use forward::{Forward, ForwardReport, PhaseTimes};
pub use saved::SavedForward;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::SyncBatchNormConfig;
use crate::device::Device;
use crate::error::{ArgumentError, ConfigError, Error, GpuError};
use crate::gpu::adapters;
use crate::stats::RunningStats;
use crate::tensor::Tensor;

/// Identity of the next layer of this process.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A synchronized batch normalization layer over several devices, one rank each, driven by one caller.
///
/// Inputs are lists with one tensor per rank: `inputs[r]` lies on `devices()[r]`, of shape (Nᵣ, C, spatial…). Ranks may
/// differ in batch and spatial size, and a rank may be empty: every value counts once. Parameters have the same values on
/// every rank; running statistics are kept once, on the host.
#[derive(Debug)]
pub struct DeviceGroup {
    config: SyncBatchNormConfig,
    devices: Vec<Device>,
    parameters: Vec<AffineParameters>,
    running: Option<RunningStats>,
    /// Counts what was set, so that a backward pass with other parameters than its forward's is noticed.
    parameters_version: u64,
    /// Tells the layers of a process apart.
    id: u64,
}

/// Weight and bias of one rank, (C) each, on its device.
#[derive(Debug, Default)]
struct AffineParameters {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl AffineParameters {
    fn both(&self) -> [Option<&Tensor>; 2] {
        [self.weight.as_ref(), self.bias.as_ref()]
    }
}

impl DeviceGroup {
    /// A group of these devices, GPUs and the host mixed as wanted; weight 1, bias 0, running mean 0, running variance 1.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting outside its range or an empty list of devices.
    pub fn new(config: SyncBatchNormConfig, devices: Vec<Device>) -> Result<Self, Error> {
        config.validate()?;
        if devices.is_empty() {
            return Err(ConfigError::NoDevices.into());
        }
        let running = config.track_running_stats.then(|| RunningStats::new(config.num_features));
        let parameters = devices.iter().map(|_| AffineParameters::default()).collect();
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let mut group = Self { config, devices, parameters, running, parameters_version: 0, id };
        let ones = group.config.weight.then(|| vec![1.0; group.config.num_features]);
        let zeros = group.config.bias.then(|| vec![0.0; group.config.num_features]);
        group.set_parameters(ones.as_deref(), zeros.as_deref())?;
        Ok(group)
    }

    /// A group of all GPUs of the machine, or of the host alone where there is none. [`devices`](Self::devices) says
    /// which, and so does a `tracing` event. A software driver is not a GPU: the host itself is faster.
    ///
    /// # Errors
    /// [`ConfigError`], or [`GpuError::RequestDevice`] when a GPU does not open.
    pub async fn auto(config: SyncBatchNormConfig) -> Result<Self, Error> {
        let mut gpus = adapters().await;
        gpus.retain(|adapter| adapter.get_info().device_type != wgpu::DeviceType::Cpu);
        let devices = if gpus.is_empty() { vec![Device::host()] } else { open(&gpus).await? };
        let group = Self::new(config, devices)?;
        tracing::info!(devices = ?group.devices, "device group");
        Ok(group)
    }

    /// A group of all adapters of the machine, software drivers included.
    ///
    /// # Errors
    /// [`ConfigError`], [`GpuError::NoAdapter`], or [`GpuError::RequestDevice`].
    pub async fn all_adapters(config: SyncBatchNormConfig) -> Result<Self, Error> {
        let all = adapters().await;
        if all.is_empty() {
            return Err(GpuError::NoAdapter { wanted: String::new() }.into());
        }
        Self::new(config, open(&all).await?)
    }

    /// A group of `count` virtual devices on one adapter: each with a queue and memory of its own.
    ///
    /// # Errors
    /// [`ConfigError`] (also for a count of 0) or [`GpuError::RequestDevice`].
    pub async fn virtual_devices(
        config: SyncBatchNormConfig,
        adapter: &wgpu::Adapter,
        count: usize,
    ) -> Result<Self, Error> {
        let mut devices = Vec::with_capacity(count);
        for _ in 0..count {
            devices.push(Device::from_adapter(adapter).await?);
        }
        Self::new(config, devices)
    }

    /// The devices in rank order.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.devices.len()
    }

    /// The layer's settings.
    pub fn config(&self) -> &SyncBatchNormConfig {
        &self.config
    }

    /// Running statistics, the same for every rank; `None` where the layer does not track them.
    pub fn running_stats(&self) -> Option<&RunningStats> {
        self.running.as_ref()
    }

    /// Replaces the running statistics.
    ///
    /// # Errors
    /// [`ArgumentError`] when the layer does not track them or the lengths are not `num_features`. Nothing is replaced then.
    pub fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error> {
        if self.running.is_none() {
            return Err(ArgumentError::NoSuchParameter { name: "running statistics" }.into());
        }
        self.check_length("running_mean", running.mean.len())?;
        self.check_length("running_var", running.var.len())?;
        self.running = Some(running);
        Ok(())
    }

    /// Sets weight and bias, (C) each, to the same values on every rank; `None` leaves one as it is.
    ///
    /// # Errors
    /// [`ArgumentError`] when the layer was configured without one of them or a length is not `num_features`. Nothing is
    /// set then.
    pub fn set_parameters(&mut self, weight: Option<&[f32]>, bias: Option<&[f32]>) -> Result<(), Error> {
        let given = [("weight", weight, self.config.weight), ("bias", bias, self.config.bias)];
        for (name, values, configured) in given {
            let Some(values) = values else { continue };
            if !configured {
                return Err(ArgumentError::NoSuchParameter { name }.into());
            }
            self.check_length(name, values.len())?;
        }
        let mut uploaded = Vec::with_capacity(self.devices.len());
        for device in &self.devices {
            let upload =
                |values: Option<&[f32]>| values.map(|values| device.upload(&[values.len()], values)).transpose();
            uploaded.push((upload(weight)?, upload(bias)?));
        }
        for (parameters, (weight, bias)) in self.parameters.iter_mut().zip(uploaded) {
            parameters.weight = weight.or(parameters.weight.take());
            parameters.bias = bias.or(parameters.bias.take());
        }
        self.parameters_version += 1;
        Ok(())
    }

    fn check_length(&self, argument: &'static str, found: usize) -> Result<(), ArgumentError> {
        let (found, expected) = (found as u64, self.config.num_features as u64);
        if found == expected { Ok(()) } else { Err(ArgumentError::Length { argument, found, expected }) }
    }
}

async fn open(adapters: &[wgpu::Adapter]) -> Result<Vec<Device>, Error> {
    let mut devices = Vec::with_capacity(adapters.len());
    for adapter in adapters {
        devices.push(Device::from_adapter(adapter).await?);
    }
    Ok(devices)
}
