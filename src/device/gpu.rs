//! Devices that are GPUs: opening them, taking them over, and their handles in wgpu.

use super::{DEFAULT_DEADLINE, Device, FastPaths, Kind};
use crate::error::{Error, GpuError};
use crate::gpu::{Gpu, OPTIONAL_FEATURES, Rewrite, adapters};
use crate::host::Threads;
use crate::trace;

impl Device {
    /// The distinct adapters of the machine: discrete GPUs first, then integrated ones, then
    /// others, software drivers last. The list is empty if there is no driver.
    ///
    /// OpenGL is left out, because it lists adapters again that Vulkan, Metal or DX12 list already.
    /// Every call returns fresh adapters, because on some platforms an adapter gives only one
    /// device.
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn adapters() -> Vec<wgpu::Adapter> {
        adapters().await
    }

    /// Opens the first of the [`adapters`](Self::adapters): a GPU, or a software driver if there is
    /// no GPU.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`] if there is no driver; otherwise as
    /// [`from_adapter`](Self::from_adapter).
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn gpu() -> Result<Self, Error> {
        match adapters().await.first() {
            Some(adapter) => Self::from_adapter(adapter).await,
            None => Err(GpuError::NoAdapter { wanted: String::new() }.into()),
        }
    }

    /// Opens all GPUs of the machine. Returns the host alone if there is none. A software driver
    /// does not count as a GPU, because the host is faster. A `tracing` event names the devices.
    ///
    /// # Errors
    /// [`GpuError::RequestDevice`] when a GPU does not open.
    ///
    /// # Cancel safety
    /// A dropped future closes what it has opened.
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

    /// The limits that an application's device must have: WebGPU's portable ones. With the larger
    /// limits of its adapter, larger tensors fit.
    pub fn required_limits() -> wgpu::Limits {
        wgpu::Limits::default()
    }

    /// The features that make kernels faster if an adapter has them. None is needed.
    pub fn optional_features() -> wgpu::Features {
        OPTIONAL_FEATURES
    }

    /// Opens a device on an adapter. Several devices on one adapter are virtual devices.
    ///
    /// A probe tests the driver's real behaviour ([`findings`](Self::findings)) before any fast
    /// path relies on it.
    ///
    /// # Errors
    /// [`GpuError::RequestDevice`] when the driver refuses;
    /// [`LimitError::Device`](crate::error::LimitError::Device) when the device is below the
    /// portable limits of WebGPU.
    ///
    /// # Cancel safety
    /// A dropped future has no effect.
    pub async fn from_adapter(adapter: &wgpu::Adapter) -> Result<Self, Error> {
        Self::from_adapter_with(adapter, FastPaths::ALL).await
    }

    /// [`from_adapter`](Self::from_adapter) with some of the [`FastPaths`] only.
    ///
    /// # Errors
    /// As [`from_adapter`](Self::from_adapter).
    ///
    /// # Cancel safety
    /// As [`from_adapter`](Self::from_adapter).
    pub async fn from_adapter_with(
        adapter: &wgpu::Adapter,
        paths: FastPaths,
    ) -> Result<Self, Error> {
        Ok(Self { kind: Kind::Gpu(Gpu::open(adapter, paths).await?), deadline: DEFAULT_DEADLINE })
    }

    /// Uses a device that the application already has. Its error and device-lost handlers stay as
    /// they are.
    ///
    /// The call submits a few small kernels that test the driver's real behaviour
    /// ([`findings`](Self::findings)). It waits on this thread until they are done, behind the work
    /// that the queue already has. It takes milliseconds for the first device of an adapter in a
    /// process, and nothing for a further one. Callbacks of the application may run meanwhile, as
    /// whenever a device is polled.
    ///
    /// If no answer comes within 10 s, as on a lost device, the fast paths that need proof stay
    /// off. In a browser they stay off too, because waiting is impossible there.
    ///
    /// # Errors
    /// [`LimitError::Device`](crate::error::LimitError::Device) when the limits are below WebGPU's
    /// portable ones.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self, Error> {
        Self::from_wgpu_with(device, queue, FastPaths::ALL)
    }

    /// [`from_wgpu`](Self::from_wgpu) with some of the [`FastPaths`] only.
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

    /// [`from_wgpu_with`](Self::from_wgpu_with) with a function that rewrites the kernels' sources.
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
