//! Devices that are GPUs: opening them, taking them over, and their handles in wgpu.

use super::{DEFAULT_DEADLINE, Device, FastPaths, Kind};
use crate::error::{Error, GpuError};
use crate::gpu::{Gpu, OPTIONAL_FEATURES, Rewrite, adapters};
use crate::host::Threads;
use crate::trace;

impl Device {
    /// The distinct adapters of the machine: discrete GPUs first, then integrated ones, then
    /// others, software drivers last.
    ///
    /// OpenGL is left out: it lists adapters a second time that Vulkan, Metal or DX12 list already.
    /// The adapters are fresh, as some platforms let an adapter give only one device; call again
    /// for another. An empty list where there is no driver.
    pub async fn adapters() -> Vec<wgpu::Adapter> {
        adapters().await
    }

    /// The first of the [`adapters`](Self::adapters), opened: a GPU, or a software driver where
    /// there is no other.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`] where there is no driver; otherwise as
    /// [`from_adapter`](Self::from_adapter).
    pub async fn gpu() -> Result<Self, Error> {
        match adapters().await.first() {
            Some(adapter) => Self::from_adapter(adapter).await,
            None => Err(GpuError::NoAdapter { wanted: String::new() }.into()),
        }
    }

    /// All GPUs of the machine, opened, or the host alone where there is none. A software driver is
    /// not a GPU: the host itself is faster. A `tracing` event says which.
    ///
    /// # Errors
    /// [`GpuError::RequestDevice`] when a GPU does not open; without the feature `host`
    /// [`GpuError::NoAdapter`] where there is none.
    pub async fn all() -> Result<Vec<Self>, Error> {
        let mut devices = Vec::new();
        for adapter in adapters().await {
            if adapter.get_info().device_type != wgpu::DeviceType::Cpu {
                devices.push(Self::from_adapter(&adapter).await?);
            }
        }
        if devices.is_empty() {
            let no_adapter = || GpuError::NoAdapter { wanted: "a GPU".to_owned() };
            let kind = Kind::Host(Threads::any().ok_or_else(no_adapter)?);
            devices.push(Self { kind, deadline: DEFAULT_DEADLINE });
        }
        trace::opened(&devices);
        Ok(devices)
    }

    /// The limits that an application's device must have: the portable ones of WebGPU. With larger
    /// ones, of the adapter, larger tensors fit.
    pub fn required_limits() -> wgpu::Limits {
        wgpu::Limits::default()
    }

    /// The features by which kernels are faster where an adapter has them; none is needed.
    pub fn optional_features() -> wgpu::Features {
        OPTIONAL_FEATURES
    }

    /// Opens a device on an adapter. Several may be opened on one adapter, as virtual devices.
    ///
    /// The driver is asked what it really does ([`findings`](Self::findings)) before any of its
    /// faster ways is relied on.
    ///
    /// # Errors
    /// [`GpuError::RequestDevice`] when the driver refuses;
    /// [`LimitError::Device`](crate::error::LimitError::Device) when it is below the portable
    /// limits of WebGPU.
    pub async fn from_adapter(adapter: &wgpu::Adapter) -> Result<Self, Error> {
        Self::from_adapter_with(adapter, FastPaths::ALL).await
    }

    /// [`from_adapter`](Self::from_adapter) with some of the device's faster ways only.
    ///
    /// # Errors
    /// As [`from_adapter`](Self::from_adapter).
    pub async fn from_adapter_with(
        adapter: &wgpu::Adapter,
        paths: FastPaths,
    ) -> Result<Self, Error> {
        Ok(Self { kind: Kind::Gpu(Gpu::open(adapter, paths).await?), deadline: DEFAULT_DEADLINE })
    }

    /// Uses a device that the application already has. Its error and device-lost handlers are left
    /// alone.
    ///
    /// Submits a few small kernels that ask the driver what it really does
    /// ([`findings`](Self::findings)), and waits on this thread until they are done, behind
    /// whatever the queue has to do: milliseconds for the first device of an adapter in a process,
    /// nothing for the next one. Where no answer comes within 10 s, as on a device that is lost,
    /// the ways that it would have proven are off. In a browser, where waiting is impossible, they
    /// are off too. Callbacks of the application may be called meanwhile, as whenever a device is
    /// polled.
    ///
    /// # Errors
    /// [`LimitError::Device`](crate::error::LimitError::Device) when its limits are below the
    /// portable ones of WebGPU.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self, Error> {
        Self::from_wgpu_with(device, queue, FastPaths::ALL)
    }

    /// [`from_wgpu`](Self::from_wgpu) with some of the device's faster ways only.
    ///
    /// # Errors
    /// As [`from_wgpu`](Self::from_wgpu).
    pub fn from_wgpu_with(
        device: wgpu::Device,
        queue: wgpu::Queue,
        paths: FastPaths,
    ) -> Result<Self, Error> {
        Ok(Self { kind: Kind::Gpu(Gpu::new(device, queue, paths)?), deadline: DEFAULT_DEADLINE })
    }

    /// [`from_wgpu_with`](Self::from_wgpu_with), compiling what a function makes of the kernels'
    /// sources.
    pub(crate) fn with_rewriting(
        device: wgpu::Device,
        queue: wgpu::Queue,
        paths: FastPaths,
        rewrite: Rewrite,
    ) -> Result<Self, Error> {
        let gpu = Gpu::with_rewriting(device, queue, paths, Some(rewrite))?;
        Ok(Self { kind: Kind::Gpu(gpu), deadline: DEFAULT_DEADLINE })
    }

    /// The wgpu device and queue behind a GPU; `None` for the host.
    pub fn wgpu(&self) -> Option<(&wgpu::Device, &wgpu::Queue)> {
        match &self.kind {
            Kind::Gpu(gpu) => Some(gpu.handles()),
            Kind::Host(_) => None,
        }
    }
}
