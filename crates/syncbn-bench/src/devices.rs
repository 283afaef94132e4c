//! Owns the choice of adapters and the devices opened on them.
//!
//! It opens every GPU and hands it to the layer. So the copy kernel runs on the same device and
//! queue.

use std::time::Duration;

use pollster::block_on;
use syncbn::Device;
use syncbn::wgpu::{self, Adapter, Features};

use crate::awake::Awake;

/// Why there are no devices.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("no adapter's name contains {wanted:?}; found are: {}", available.join(", "))]
    NoAdapter { wanted: String, available: Vec<String> },
    #[error("{adapter} gives no device: {source}")]
    Request { adapter: String, source: wgpu::RequestDeviceError },
}

/// The ranks, and the GPUs that they are on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// In rank order.
    pub ranks: Vec<Device>,
    /// Without repetition; none on the host.
    pub gpus: Vec<Gpu>,
    /// Whether the ranks share a device, as was asked.
    pub shared: bool,
    /// Names of the adapters with their backends, or `host`.
    pub adapter: String,
    /// Keeps the GPUs at full clock.
    pub awake: Awake,
}

/// One wgpu device.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
}

impl Machine {
    /// Whether all ranks share one GPU on request. Statistics need not leave it then.
    pub fn is_shared(&self) -> bool {
        self.shared && self.gpus.len() == 1
    }

    /// Whether every device measures its own time.
    pub fn has_clock(&self) -> bool {
        !self.gpus.is_empty() && self.gpus.iter().all(Gpu::has_timestamps)
    }

    /// The same ranks, whose layers take no timestamps.
    pub fn without_timestamps(&self) -> Result<Self, syncbn::Error> {
        let mut gpus = Vec::with_capacity(self.gpus.len());
        for Gpu { device, queue } in &self.gpus {
            gpus.push(Device::from_wgpu(device.clone(), queue.clone())?);
        }
        if gpus.is_empty() {
            return Ok(self.clone());
        }
        let ranks = gpus.iter().cycle().take(self.ranks.len()).cloned().collect();
        let Self { gpus, shared, adapter, awake, .. } = self.clone();
        Ok(Self { ranks, gpus, shared, adapter, awake })
    }

    /// Time of the layer's kernels since the last call, by the devices' own clocks. `None` if a
    /// device has no clock.
    pub fn device_time(&self) -> Result<Option<Duration>, syncbn::Error> {
        if !self.has_clock() {
            return Ok(None);
        }
        // Devices work in parallel, so the slowest counts. Ranks on one device share its clock.
        let mut slowest = Duration::ZERO;
        for device in &self.ranks {
            slowest = slowest.max(block_on(device.take_device_time())?);
        }
        Ok(Some(slowest))
    }
}

impl Gpu {
    /// Whether it can time its passes itself.
    pub fn has_timestamps(&self) -> bool {
        self.device.features().contains(Features::TIMESTAMP_QUERY)
    }
}

/// Opens a device for each rank, or one for all of them, on the adapters whose name contains
/// `wanted` in turn.
pub async fn open(
    wanted: Option<&str>,
    ranks: usize,
    shared: bool,
) -> Result<Machine, Box<dyn std::error::Error>> {
    let adapters = match wanted {
        Some(name) if name.eq_ignore_ascii_case("host") => Vec::new(),
        Some(name) => named(name, Device::adapters().await)?,
        // The list begins with GPUs and ends with software drivers.
        None => Device::adapters().await.into_iter().take(1).collect(),
    };
    if adapters.is_empty() {
        return Ok(Machine {
            ranks: vec![Device::host(); ranks],
            gpus: Vec::new(),
            shared,
            adapter: "host".to_owned(),
            awake: Awake::default(),
        });
    }
    let count = if shared { 1 } else { ranks };
    let used = || adapters.iter().cycle().take(count);
    let mut gpus = Vec::with_capacity(count);
    let mut devices = Vec::with_capacity(count);
    for adapter in used() {
        let gpu = request(adapter).await?;
        let device = Device::from_wgpu(gpu.device.clone(), gpu.queue.clone())?;
        devices.push(if gpu.has_timestamps() { device.with_timestamps()? } else { device });
        gpus.push(gpu);
    }
    let ranks = devices.iter().cycle().take(ranks).cloned().collect();
    let awake = Awake::new(&gpus)?;
    Ok(Machine { ranks, gpus, shared, adapter: joined(used()), awake })
}

/// A device with all that its adapter offers, as the layer chooses its kernels by that.
async fn request(adapter: &Adapter) -> Result<Gpu, DeviceError> {
    // Host-visible memory for every buffer is slower on some GPUs, and nothing here maps a tensor.
    let unwanted = Features::MAPPABLE_PRIMARY_BUFFERS | Features::all_experimental_mask();
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("bench"),
        required_features: adapter.features() - unwanted,
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let opened = adapter.request_device(&descriptor).await;
    let (device, queue) =
        opened.map_err(|source| DeviceError::Request { adapter: name(adapter), source })?;
    Ok(Gpu { device, queue })
}

fn named(wanted: &str, adapters: Vec<Adapter>) -> Result<Vec<Adapter>, DeviceError> {
    let matches = |adapter: &Adapter| name(adapter).to_lowercase().contains(&wanted.to_lowercase());
    let (found, others): (Vec<_>, Vec<_>) = adapters.into_iter().partition(matches);
    if !found.is_empty() {
        return Ok(found);
    }
    let available = others.iter().map(name).chain(["host".to_owned()]).collect();
    Err(DeviceError::NoAdapter { wanted: wanted.to_owned(), available })
}

/// Different names once each, in order.
fn joined<'a>(adapters: impl Iterator<Item = &'a Adapter>) -> String {
    let mut names: Vec<String> = adapters.map(name).collect();
    names.dedup();
    names.join(" + ")
}

fn name(adapter: &Adapter) -> String {
    let info = adapter.get_info();
    format!("{} ({})", info.name, info.backend)
}
