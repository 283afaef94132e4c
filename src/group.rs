//! `DeviceGroup`: one caller drives several devices. There is no rendezvous, so nothing can wait for a peer.

mod backward;
mod check;
mod forward;
mod inputs;
mod many;
mod prepare;
mod saved;
mod state;
mod together;

pub(crate) use backward::GradOutputs;
pub use backward::{Backward, BackwardReport, GradTargets};
pub use forward::{Forward, ForwardReport, PhaseTimes};
pub use inputs::{InPlace, Inputs};
pub use many::ForwardRequest;
pub(crate) use saved::SavedCall;
pub use saved::SavedForward;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::collective::{Phase, ProcessGroup};
use crate::config::{Initializer, Statistics, SyncBatchNormConfig};
use crate::coordinator::{Call, Exchange};
use crate::device::Device;
use crate::engine;
use crate::error::{ArgumentError, ConfigError, Error, GpuError};
use crate::gpu::adapters;
use crate::stats::RunningStats;
use crate::tensor::{Seen, Tensor};

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
    /// Tells the layers of a process apart.
    id: u64,
    /// The ranks beyond this caller's.
    exchange: Arc<Exchange>,
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

    /// What they are now, so that a backward pass with other parameters than its forward's is noticed.
    fn seen(&self) -> [Option<Seen>; 2] {
        self.both().map(|parameter| parameter.map(Tensor::seen))
    }
}

impl DeviceGroup {
    /// A group of these devices, GPUs and the host mixed as wanted; with the initial values that the
    /// configuration gives.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting outside its range or an empty list of devices.
    pub fn new(config: SyncBatchNormConfig, devices: Vec<Device>) -> Result<Self, Error> {
        Self::within(config, devices, &ProcessGroup::single(), "")
    }

    /// A group of these devices whose statistics merge first among themselves and then with those of the other processes
    /// or threads of `group`, each of which may hold as many devices as it likes. All must make their layers in the same
    /// order. Ranks count through: those of the first process, then those of the second, and so on.
    ///
    /// It does not communicate: how many devices the others hold is learnt in the first exchange.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn in_group(
        config: SyncBatchNormConfig,
        devices: Vec<Device>,
        group: &ProcessGroup,
    ) -> Result<Self, Error> {
        Self::within(config, devices, group, "")
    }

    pub(crate) fn within(
        config: SyncBatchNormConfig,
        devices: Vec<Device>,
        group: &ProcessGroup,
        name: &str,
    ) -> Result<Self, Error> {
        config.validate()?;
        if devices.is_empty() {
            return Err(ConfigError::NoDevices.into());
        }
        let initial = |initializer: &Initializer, name, stream| {
            initializer.values(name, config.num_features, config.seed, stream)
        };
        let weight = config.weight.then(|| initial(&config.weight_init, "weight_init", 0)).transpose()?;
        let bias = config.bias.then(|| initial(&config.bias_init, "bias_init", 1)).transpose()?;
        let mean = initial(&config.running_mean_init, "running_mean_init", 2)?;
        let var = initial(&config.running_var_init, "running_var_init", 3)?;
        if let Some(&negative) = var.iter().find(|&&var| var < 0.0) {
            let found = f64::from(negative);
            let (name, allowed) = ("running_var_init", "variances of at least 0");
            return Err(ConfigError::OutOfRange { name, found, allowed }.into());
        }
        let running = config.track_running_stats.then_some(RunningStats { mean, var, num_batches_tracked: 0 });
        let parameters = devices.iter().map(|_| AffineParameters::default()).collect();
        let id = next_id();
        let exchange = Exchange::new(group, name, config.num_features, devices.len()).into();
        let mut group = Self { config, devices, parameters, running, id, exchange };
        group.set_parameters(weight.as_deref(), bias.as_deref())?;
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

    /// What the engine needs of the layer on a rank.
    pub(crate) fn engine_layer(&self, rank: usize) -> engine::Layer<'_> {
        let [weight, bias] = self.parameters[rank].both();
        let host_ranks = self.devices.iter().filter(|device| device.is_host()).count();
        engine::Layer { weight, bias, epilogue: self.config.epilogue, host_ranks }
    }

    /// Whether other processes or threads hold ranks of the group too.
    pub(crate) fn has_peers(&self) -> bool {
        self.exchange.total_ranks() != self.devices.len() as u64
    }

    /// Exchanges the running statistics, which a group may keep elsewhere.
    pub(crate) fn replace_running(&mut self, running: Option<RunningStats>) -> Option<RunningStats> {
        std::mem::replace(&mut self.running, running)
    }

    /// Begins a call that normalizes with these statistics; `None` where it communicates with nobody.
    fn begin(&self, phase: Phase, subject: u64, statistics: Statistics) -> Result<Option<Call>, Error> {
        let begin = || self.exchange.begin(phase, subject, self.config.checksum(), self.patience());
        Ok(if statistics == Statistics::Group { Some(begin()?) } else { None })
    }

    /// How long the slowest device may take for a result. The host computes while it is polled.
    fn patience(&self) -> Duration {
        let gpus = self.devices.iter().filter(|device| !device.is_host());
        gpus.map(Device::deadline).max().unwrap_or_default()
    }

    /// Checks the length of a list with one value per channel.
    fn check_length(&self, argument: &'static str, found: usize) -> Result<(), ArgumentError> {
        let (found, expected) = (found as u64, self.config.num_features as u64);
        if found == expected { Ok(()) } else { Err(ArgumentError::Length { argument, found, expected }) }
    }
}

/// Ends a call: where it communicates, the peers learn of a failure.
fn end<T>(call: Option<Call>, result: Result<T, Error>) -> Result<T, Error> {
    if let Some(call) = call {
        call.end(&result);
    }
    result
}

/// A tensor of zeros like each of these.
pub(crate) fn zeros_like(tensors: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    tensors.iter().map(Tensor::zeros_like).collect()
}

/// A number that no other layer of this process has.
fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

async fn open(adapters: &[wgpu::Adapter]) -> Result<Vec<Device>, Error> {
    let mut devices = Vec::with_capacity(adapters.len());
    for adapter in adapters {
        devices.push(Device::from_adapter(adapter).await?);
    }
    Ok(devices)
}
