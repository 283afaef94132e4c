//! One GPU: device, queue, pipelines, submissions, readback. It knows slots and bytes, not channels.
//!
//! The device may be the application's own: nothing here replaces its error or device-lost handlers. Failures are caught
//! by error scopes, pushed and popped on the thread that issues the commands.

mod adapter;
mod bindings;
mod buffer;
mod clock;
mod pipelines;
mod pool;
mod readback;
mod scope;
mod submit;
mod trace;

pub use adapter::adapters;
pub(crate) use buffer::BufferSlice;
pub(crate) use pool::Lease;
pub(crate) use submit::Recorder;

use futures::future::{BoxFuture, FutureExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, GpuError, LimitError};
use crate::fast_paths::FastPaths;
use crate::plan::DeviceCaps;
use crate::shaders::WORKGROUP_SIZE;
use bindings::Bindings;
use clock::Clock;
use pipelines::Pipelines;
use pool::Pool;
use readback::Poller;

/// Storage buffers of the kernel that binds most of them.
const MAX_STORAGE_BUFFERS: u32 = 8;
/// Workgroup memory of the kernel that uses most of it, in bytes.
const WORKGROUP_MEMORY_BYTES: u32 = 16_384;

/// What a device is opened with where its adapter has it; nothing needs it.
const OPTIONAL_FEATURES: wgpu::Features =
    wgpu::Features::SHADER_F16.union(wgpu::Features::TIMESTAMP_QUERY).union(wgpu::Features::SUBGROUP);

/// A result that a device is already working on.
pub(crate) type Pending<T> = BoxFuture<'static, Result<T, Error>>;

/// A GPU with everything made for it once. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    context: Arc<Context>,
}

#[derive(Debug)]
struct Context {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    caps: DeviceCaps,
    pipelines: Pipelines,
    bindings: Arc<Bindings>,
    /// Memory of one call, and then of the next.
    scratch: Arc<Pool>,
    /// Where results are copied to be mapped.
    staging: Arc<Pool>,
    poller: Arc<Poller>,
    spares: [BufferSlice; 4],
    /// Where passes are timed.
    clock: OnceLock<Clock>,
}

/// Number of the next GPU opened in this process: virtual devices of one adapter have nothing else to tell them apart.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.context, &other.context) || is_one_device(&self.context.device, &other.context.device)
    }
}

/// Whether two handles are of the same device. wgpu numbers devices per instance, so that equal handles may be of two.
fn is_one_device(a: &wgpu::Device, b: &wgpu::Device) -> bool {
    if a != b {
        return false;
    }
    // A scope on one device hears an error of the other only if they are the same. The outer scope keeps it from the
    // application's handler otherwise.
    let outer = b.push_error_scope(wgpu::ErrorFilter::Validation);
    let inner = a.push_error_scope(wgpu::ErrorFilter::Validation);
    drop(b.create_buffer(&wgpu::BufferDescriptor {
        label: Some("syncbn: no usage, an error on purpose"),
        size: 4,
        usage: wgpu::BufferUsages::empty(),
        mapped_at_creation: false,
    }));
    let heard = inner.pop().now_or_never().flatten().is_some();
    drop(outer.pop());
    heard
}

/// Whether kernels may merge four neighbouring invocations in registers. Browsers want subgroups enabled in the text, which
/// naga does not know yet.
fn has_subgroups(device: &wgpu::Device) -> bool {
    let has_feature = device.features().contains(wgpu::Features::SUBGROUP);
    has_feature && device.adapter_info().subgroup_min_size >= 4 && !cfg!(target_arch = "wasm32")
}

impl Gpu {
    /// Takes over a device and its queue, which the application may go on using, with these of its faster ways.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue, paths: FastPaths) -> Result<Self, Error> {
        let info = device.adapter_info();
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{} ({}) #{number}", info.name, info.backend);
        let limits = device.limits();
        let at_least = |limit, found: u32, expected: u32| {
            let (found, expected) = (u64::from(found), u64::from(expected));
            let device = name.clone();
            if found < expected { Err(LimitError::Device { device, limit, found, expected }) } else { Ok(()) }
        };
        at_least(
            "max_compute_invocations_per_workgroup",
            limits.max_compute_invocations_per_workgroup,
            WORKGROUP_SIZE,
        )?;
        at_least("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x, WORKGROUP_SIZE)?;
        at_least(
            "max_storage_buffers_per_shader_stage",
            limits.max_storage_buffers_per_shader_stage,
            MAX_STORAGE_BUFFERS,
        )?;
        at_least(
            "max_compute_workgroup_storage_size",
            limits.max_compute_workgroup_storage_size,
            WORKGROUP_MEMORY_BYTES,
        )?;
        let caps = DeviceCaps {
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            offset_alignment_bytes: limits.min_storage_buffer_offset_alignment,
            native_f16: paths.native_f16 && device.features().contains(wgpu::Features::SHADER_F16),
            quads: paths.quads,
            subgroups: paths.subgroups && has_subgroups(&device),
        };
        // Apart from each other: a kernel may not bind one range twice for writing, as some variants declare all buffers.
        let spares = std::array::from_fn(|_| BufferSlice::spare(&device));
        let poller = Arc::new(Poller::new(device.clone(), name.clone()));
        let (pipelines, bindings, clock) = (Pipelines::default(), Arc::default(), OnceLock::new());
        let (scratch, staging) = (Arc::default(), Arc::default());
        let context =
            Context { device, queue, name, caps, pipelines, bindings, scratch, staging, poller, spares, clock };
        Ok(Self { context: Arc::new(context) })
    }

    /// Opens a device of its own on an adapter, with all of the adapter's limits, and its own f16 and timestamps where it has
    /// them.
    pub async fn open(adapter: &wgpu::Adapter, paths: FastPaths) -> Result<Self, Error> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("syncbn"),
            required_limits: adapter.limits(),
            required_features: adapter.features() & OPTIONAL_FEATURES,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|error| GpuError::RequestDevice {
            adapter: adapter.get_info().name,
            message: error.to_string(),
        })?;
        Self::new(device, queue, paths)
    }

    /// Name of the adapter and its backend.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// The wgpu device and its queue.
    pub fn handles(&self) -> (&wgpu::Device, &wgpu::Queue) {
        (&self.context.device, &self.context.queue)
    }

    /// What plans need to know.
    pub fn caps(&self) -> &DeviceCaps {
        &self.context.caps
    }

    /// Memory to bind where a kernel has a buffer that the layer has not: four of them, each a buffer of its own.
    pub fn spare(&self, index: usize) -> &BufferSlice {
        &self.context.spares[index]
    }

    /// Waits until everything submitted so far is done.
    pub fn wait(&self, deadline: Duration) -> Pending<()> {
        // An empty submission stands for all before it.
        let index = self.submit_commands([]);
        let done = self
            .context
            .poller
            .watch(index, deadline, |reply| self.context.queue.on_submitted_work_done(move || reply.send(Ok(()))));
        async move { Ok(done.await?) }.boxed()
    }
}
