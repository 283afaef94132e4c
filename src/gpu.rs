//! One GPU: device, queue, pipelines, submissions, readback. It knows slots and bytes, not
//! channels.
//!
//! The device may be the application's own: nothing here replaces its error or device-lost
//! handlers. Failures are caught by error scopes, pushed and popped on the thread that issues the
//! commands.

mod adapter;
mod bindings;
mod buffer;
mod clock;
mod opening;
mod pipelines;
mod polling;
mod pool;
mod probe;
mod readback;
mod scope;
mod submit;
mod trace;
mod unheard;
mod watch;

pub(crate) use adapter::adapters;
pub(crate) use buffer::BufferSlice;
pub(crate) use pipelines::Rewrite;
pub(crate) use pool::{Lease, Memory};
pub(crate) use submit::{Recorded, Recorder};
pub(crate) use watch::Watch;

use futures::TryFutureExt;
use futures::future::{BoxFuture, FutureExt, try_join};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, GpuError};
use crate::fast_paths::FastPaths;
use crate::plan::DeviceCaps;
use crate::probe::Findings;
use bindings::Bindings;
use clock::Clock;
use opening::Opening;
use pipelines::Pipelines;
use polling::Poller;
use pool::Pool;
use unheard::Unheard;

/// Features that a device gets if its adapter has them. None is needed.
pub(crate) const OPTIONAL_FEATURES: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SUBGROUP);

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
    findings: Option<Arc<Findings>>,
    pipelines: Pipelines,
    bindings: Arc<Bindings>,
    /// Memory for kernels of a call, recycled for later calls.
    scratch: Arc<Pool>,
    /// Buffers to which results are copied for mapping.
    staging: Arc<Pool>,
    poller: Arc<Poller>,
    unheard: Unheard,
    dummies: [BufferSlice; 4],
    no_lengths: BufferSlice,
    /// Timestamps of passes.
    clock: OnceLock<Clock>,
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.context, &other.context)
            || is_one_device(&self.context.device, &other.context.device)
    }
}

/// Whether two handles are of the same device. wgpu numbers devices per instance, so equal handles
/// may be of two devices.
fn is_one_device(a: &wgpu::Device, b: &wgpu::Device) -> bool {
    if a != b || cfg!(target_arch = "wasm32") {
        // A page has one instance.
        return a == b;
    }
    // A scope on one device catches an error of the other only if they are the same. Otherwise the
    // outer scope keeps it from the application's handler.
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

impl Gpu {
    /// Takes over a device and its queue, which the application may go on using. It takes those of
    /// these fast paths at which the probe finds the driver sound. It waits on this thread for the
    /// driver's answers, up to a deadline.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue, paths: FastPaths) -> Result<Self, Error> {
        Self::with_rewriting(device, queue, paths, None)
    }

    /// The same, with a function that rewrites the kernels' sources.
    pub fn with_rewriting(
        device: wgpu::Device,
        queue: wgpu::Queue,
        paths: FastPaths,
        rewrite: Option<Rewrite>,
    ) -> Result<Self, Error> {
        let opening = Opening::new(device, queue)?;
        let found = opening.probe_now(paths);
        Ok(Self::opened(opening, found, rewrite))
    }

    /// The GPU of an opening and the findings about it.
    fn opened(
        Opening { device, queue, name, poller }: Opening,
        found: probe::Found,
        rewrite: Option<Rewrite>,
    ) -> Self {
        let limits = device.limits();
        let caps = DeviceCaps {
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            offset_alignment_bytes: limits.min_storage_buffer_offset_alignment,
            native_f16: found.paths.native_f16,
            rounds_f16: found.findings.as_ref().and_then(|findings| findings.rounds_f16)
                == Some(true),
            quads: found.paths.quads,
            subgroups: found.paths.subgroups,
            step_lanes: device.adapter_info().subgroup_min_size.clamp(8, 16),
        };
        let context = Context {
            queue,
            name,
            caps,
            findings: found.findings,
            pipelines: Pipelines::new(rewrite),
            bindings: Arc::default(),
            scratch: Arc::default(),
            staging: Arc::default(),
            poller,
            unheard: Unheard::default(),
            // Buffers of their own: a kernel may not bind one range twice for writing, and some
            // variants declare all buffers `read_write`.
            dummies: std::array::from_fn(|_| BufferSlice::dummy(&device)),
            no_lengths: BufferSlice::no_lengths(&device),
            clock: OnceLock::new(),
            device,
        };
        Self { context: Arc::new(context) }
    }

    /// Opens a device of its own on an adapter, with all of the adapter's limits, and subgroups
    /// and timestamps where it has them.
    pub async fn open(adapter: &wgpu::Adapter, paths: FastPaths) -> Result<Self, Error> {
        let flags = adapter.get_downlevel_capabilities().flags;
        let converts_f16 = flags.contains(wgpu::DownlevelFlags::SHADER_F16_IN_F32);
        let paths = paths.with_native_f16(paths.native_f16 && converts_f16);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("syncbn"),
            required_limits: adapter.limits(),
            required_features: adapter.features() & OPTIONAL_FEATURES,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|error| {
            GpuError::RequestDevice { adapter: adapter.get_info().name, message: error.to_string() }
        })?;
        let opening = Opening::new(device, queue)?;
        let found = opening.probe(paths).await;
        Ok(Self::opened(opening, found, None))
    }

    /// Name of the adapter and its backend.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// The wgpu device and its queue.
    pub fn handles(&self) -> (&wgpu::Device, &wgpu::Queue) {
        (&self.context.device, &self.context.queue)
    }

    /// The capabilities that plans depend on.
    pub fn caps(&self) -> &DeviceCaps {
        &self.context.caps
    }

    /// Findings about the driver, if it was probed.
    pub fn findings(&self) -> Option<&Findings> {
        self.context.findings.as_deref()
    }

    /// A dummy buffer for a binding that the layer does not use: one of four, each a buffer of its
    /// own.
    pub fn dummy(&self, index: usize) -> &BufferSlice {
        &self.context.dummies[index]
    }

    /// The dummy buffer for the lengths of samples that are not padded.
    pub fn no_lengths(&self) -> &BufferSlice {
        &self.context.no_lengths
    }

    /// Waits until everything submitted so far is done.
    pub fn wait(&self, deadline: Duration) -> Pending<()> {
        // An empty submission stands for all before it.
        let index = self.submit_commands([]);
        let done = self.context.poller.watch(index, deadline, |reply| {
            self.context.queue.on_submitted_work_done(move || reply.send(Ok(())))
        });
        let this = self.clone();
        async move {
            // Both at once, because the deadline holds for both.
            try_join(this.context.unheard.hear(), done.map_err(Error::from)).await?;
            Ok(())
        }
        .boxed()
    }
}
