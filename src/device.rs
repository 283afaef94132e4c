//! The handle of a device: a GPU, or the host itself.
//!
//! Owns the choice between the two and the deadline of waits. Allocation lies in `tensor`, the
//! phases in `engine`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, GpuError};
pub use crate::fast_paths::FastPaths;
use crate::gpu::{Gpu, OPTIONAL_FEATURES, Rewrite, adapters};
use crate::host::Threads;
pub use crate::probe::{Arithmetic, Defect, Findings};

/// How long a result may take before the device counts as lost, unless [`Device::with_deadline`]
/// says otherwise. Longer than any pass over the largest buffer takes on a software driver, short
/// enough to notice.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

/// A GPU or the host, on which the tensors of one rank lie. Clones are handles of the same device.
///
/// # Who polls
/// Results of a GPU arrive while somebody polls it. A future of this crate that waits for one does
/// so itself whenever its executor polls it, for up to 200 µs in which it asks to be polled again
/// at once; after that a thread of the device waits, asleep otherwise. So futures run under any
/// executor: `pollster::block_on`, tokio, or another. An application that polls its device itself
/// may go on doing so. In a browser the event loop does it.
#[derive(Clone, PartialEq)]
pub struct Device {
    kind: Kind,
    deadline: Duration,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Kind {
    Gpu(Gpu),
    Host(Threads),
}

impl Device {
    /// The host: the same layer computed on the CPU, with no driver needed. It may stand beside
    /// GPUs in one group.
    ///
    /// It computes on the caller's thread and on those of rayon's global pool, as many as
    /// `RAYON_NUM_THREADS` or the machine says; results are the same bits for any number. Small
    /// tensors are computed on the caller's thread alone. A caller on a thread of another rayon
    /// pool is helped by that pool.
    ///
    /// A call never waits for a thread of the pool that is in another task: the caller's thread
    /// does what nobody helps with. Nor does the caller's thread run other tasks of the pool
    /// meanwhile. So the ranks of a group may be tasks of the pool that they compute on, with a
    /// thread for each, since a rank that waits for its peers keeps its thread.
    pub fn host() -> Self {
        Self { kind: Kind::Host(Threads::default()), deadline: DEFAULT_DEADLINE }
    }

    /// The host, on the threads of a pool of the application's instead of rayon's global one. A
    /// pool of one thread leaves all to the caller's. Several devices may share a pool.
    ///
    /// ```
    /// use std::sync::Arc;
    /// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    /// let device = syncbn::Device::host_with_pool(Arc::new(pool));
    /// assert!(device.is_host());
    /// # Ok::<(), rayon::ThreadPoolBuildError>(())
    /// ```
    pub fn host_with_pool(pool: Arc<rayon::ThreadPool>) -> Self {
        Self { kind: Kind::Host(Threads::of(pool)), deadline: DEFAULT_DEADLINE }
    }

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
    /// [`GpuError::RequestDevice`] when a GPU does not open.
    pub async fn all() -> Result<Vec<Self>, Error> {
        let mut devices = Vec::new();
        for adapter in adapters().await {
            if adapter.get_info().device_type != wgpu::DeviceType::Cpu {
                devices.push(Self::from_adapter(&adapter).await?);
            }
        }
        if devices.is_empty() {
            devices.push(Self::host());
        }
        tracing::info!(?devices, "devices");
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
    /// texts.
    pub(crate) fn with_rewriting(
        device: wgpu::Device,
        queue: wgpu::Queue,
        paths: FastPaths,
        rewrite: Rewrite,
    ) -> Result<Self, Error> {
        let gpu = Gpu::with_rewriting(device, queue, paths, Some(rewrite))?;
        Ok(Self { kind: Kind::Gpu(gpu), deadline: DEFAULT_DEADLINE })
    }

    /// Which faster ways the kernels on a GPU take: those that were not switched off, that the
    /// device has the features for, and that its driver was found to do well;
    /// [`findings`](Self::findings) has the reason where one is off. `None` for the host.
    pub fn fast_paths(&self) -> Option<FastPaths> {
        match &self.kind {
            Kind::Gpu(gpu) => Some(gpu.caps().fast_paths()),
            Kind::Host(_) => None,
        }
    }

    /// What the driver of a GPU was found to do when the device was opened, and why a way that it
    /// has the feature for is not taken. `None` for the host, and where nothing could be asked:
    /// wgpu's no-op device, a browser's device that the application made.
    pub fn findings(&self) -> Option<&Findings> {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.findings(),
            Kind::Host(_) => None,
        }
    }

    /// The same device with another limit for how long a result may take (60 s by default).
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same device, timing every compute pass of this crate on it from now on, for all its
    /// handles.
    ///
    /// # Errors
    /// [`GpuError::NoTimestamps`] for the host, and for a device without the feature
    /// `TIMESTAMP_QUERY`.
    pub fn with_timestamps(self) -> Result<Self, Error> {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.start_clock()?,
            Kind::Host(_) => return Err(GpuError::NoTimestamps { device: self.to_string() }.into()),
        }
        Ok(self)
    }

    /// The device's own time of the compute passes that this crate has submitted to it since this
    /// was last called, each from its beginning to its end, added up. Waits until they are done.
    ///
    /// # Errors
    /// [`GpuError::NoTimestamps`] before [`with_timestamps`](Self::with_timestamps);
    /// [`GpuError::TooManyPasses`] after more than 2048 passes, which are forgotten then;
    /// [`GpuError`] when the device is lost or the deadline passes.
    pub async fn take_device_time(&self) -> Result<Duration, Error> {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.take_time(self.deadline).await,
            Kind::Host(_) => Err(GpuError::NoTimestamps { device: self.to_string() }.into()),
        }
    }

    /// Name of the adapter with its backend, or `host`.
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.name(),
            Kind::Host(_) => "host",
        }
    }

    /// Whether this is the host.
    pub fn is_host(&self) -> bool {
        matches!(self.kind, Kind::Host(_))
    }

    /// The wgpu device and queue behind a GPU; `None` for the host.
    pub fn wgpu(&self) -> Option<(&wgpu::Device, &wgpu::Queue)> {
        match &self.kind {
            Kind::Gpu(gpu) => Some(gpu.handles()),
            Kind::Host(_) => None,
        }
    }

    /// Waits until everything submitted to the device so far is done. The host is always done.
    ///
    /// # Errors
    /// [`GpuError`] when the device is lost or the deadline passes.
    pub async fn wait(&self) -> Result<(), Error> {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.wait(self.deadline).await,
            Kind::Host(_) => Ok(()),
        }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether two handles are of the same device; deadlines may differ.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.name()).finish()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
