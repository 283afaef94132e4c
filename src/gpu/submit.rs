//! Recording dispatches and submitting them, with errors caught.

use std::time::Duration;

use bytemuck::Pod;
use futures::FutureExt;
use futures::TryFutureExt;
use futures::future::{join, try_join};

use super::bindings::{Bound, Key};
use super::buffer::BufferSlice;
use super::clock::Clock;
use super::scope::Scope;
use super::{Gpu, Pending, readback, trace};
use crate::error::Error;
use crate::plan::{Dispatch, Role};
use crate::shaders::{Access, Variant};

/// Records the commands of one submission, with all dispatches in one compute pass. Each dispatch
/// sees the writes of earlier ones.
pub(crate) struct Recorder<'a> {
    gpu: &'a Gpu,
    label: &'static str,
    encoder: &'a mut wgpu::CommandEncoder,
    /// The pass, once there is a dispatch.
    pass: Option<wgpu::ComputePass<'static>>,
}

impl Recorder<'_> {
    /// Records a dispatch of a plan; `slice_of` gives the slice of a role.
    pub fn dispatch<'s, P: Pod>(
        &mut self,
        dispatch: &Dispatch<P>,
        slice_of: impl Fn(Role) -> &'s BufferSlice,
    ) {
        let gpu = self.gpu;
        let bound = |role: Role| {
            dispatch
                .parts
                .of_role(role)
                .map_or_else(|| slice_of(role).clone(), |part| slice_of(role).part(part))
        };
        let roles = dispatch.variant.bindings().iter().map(|binding| binding.role);
        let lengths = dispatch.variant.lengths_binding().map(|_| Role::Lengths);
        let slices: Vec<BufferSlice> = roles.chain(lengths).map(bound).collect();
        debug_assert!(
            !writes_what_it_binds_again(&dispatch.variant, &slices),
            "{:?}: {slices:?}",
            dispatch.variant
        );
        let key = Key::new(dispatch.variant, bytemuck::bytes_of(&dispatch.params), &slices);
        let Bound { pipeline, group } =
            gpu.context.bindings.get(key, &slices, |key| gpu.bind(key, &slices));
        let label = self.label;
        let encoder = &mut *self.encoder;
        let pass = self.pass.get_or_insert_with(|| {
            let timestamp_writes = gpu.context.clock.get().and_then(Clock::next_pass);
            let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        });
        pipeline.dispatch(pass, &group, dispatch.workgroups);
    }

    /// Replaces the contents of memory of this call before the submission begins. Takes whole
    /// words.
    pub fn write(&mut self, slice: &BufferSlice, bytes: &[u8]) {
        self.gpu.context.queue.write_buffer(&slice.buffer, slice.offset_bytes, bytes);
    }

    /// Records that the first `count` queries go to a buffer.
    pub fn resolve(&mut self, queries: &wgpu::QuerySet, count: u32, to: &BufferSlice) {
        self.between_passes().resolve_query_set(queries, 0..count, &to.buffer, to.offset_bytes);
    }

    /// The encoder, with no pass open.
    fn between_passes(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder
    }
}

/// Commands that are recorded, and not submitted yet.
#[derive(Debug)]
pub(crate) struct Recorded(wgpu::CommandBuffer);

/// Whether a buffer that the kernel writes is also one that it reads, as another slice.
fn writes_a_buffer_it_reads(variant: &Variant, slices: &[BufferSlice]) -> bool {
    let slots = || variant.bindings().iter().zip(slices);
    let written = slots().filter(|(slot, _)| slot.access == Access::Write);
    written.into_iter().any(|(_, out)| {
        slots().any(|(slot, slice)| slot.access == Access::Read && slice.buffer == out.buffer)
    })
}

/// Whether memory that the kernel writes is bound once more, which WebGPU forbids.
fn writes_what_it_binds_again(variant: &Variant, slices: &[BufferSlice]) -> bool {
    let slots = || variant.bindings().iter().zip(slices).filter(|(slot, _)| variant.declares(slot));
    let written = slots().enumerate().filter(|(_, (slot, _))| slot.access == Access::Write);
    written.into_iter().any(|(at, (_, out))| {
        slots().enumerate().any(|(other, (_, slice))| at != other && slice.overlaps(out))
    })
}

impl Gpu {
    /// Submits the recording of `record`. The submission has taken place when this returns. The
    /// future reports errors.
    pub fn submit(
        &self,
        phase: &'static str,
        record: impl FnOnce(&mut Recorder<'_>),
    ) -> Pending<()> {
        let scope = self.issue(phase, record);
        self.heard(self.caught(scope)).boxed()
    }

    /// [`submit`](Self::submit) that reports known errors at once. Natively these are all errors.
    pub fn submit_now(
        &self,
        phase: &'static str,
        record: impl FnOnce(&mut Recorder<'_>),
    ) -> Result<(), Error> {
        let scope = self.issue(phase, record);
        self.context.unheard.now(self.caught(scope))
    }

    /// Runs `record` on the application's encoder. The application gets the errors that wgpu finds
    /// at the end or at the submission of the encoder.
    pub fn encode(
        &self,
        phase: &'static str,
        encoder: &mut wgpu::CommandEncoder,
        record: impl FnOnce(&mut Recorder<'_>),
    ) -> Result<(), Error> {
        let scope = Scope::open(self, phase);
        self.record(phase, encoder, record);
        self.context.unheard.now(self.caught(scope))
    }

    /// Submits the recording of `record` and a copy of `result` after it. The future returns the
    /// bytes.
    ///
    /// The submission has taken place when this returns, and the future may be driven by any
    /// executor.
    pub fn submit_and_read(
        &self,
        phase: &'static str,
        deadline: Duration,
        result: &BufferSlice,
        record: impl FnOnce(&mut Recorder<'_>),
    ) -> Pending<Vec<u8>> {
        let scope = Scope::open(self, phase);
        let mut encoder = self.encoder(phase);
        self.record(phase, &mut encoder, record);
        let staging = readback::copy_out(self, &mut encoder, result);
        let index = self.submit_commands([encoder.finish()]);
        let mapped = staging.map(&self.context.poller, index, deadline);
        let heard = self.heard(self.caught(scope));
        async move {
            // Both at once, because the deadline of the result holds for both.
            try_join(heard, mapped.map_err(Error::from)).await?;
            Ok(staging.take()?)
        }
        .boxed()
    }

    /// Records commands ahead of their submission, so that they cost no time once what they read is
    /// known.
    pub fn record_ahead(
        &self,
        phase: &'static str,
        record: impl FnOnce(&mut Recorder<'_>),
    ) -> Result<Recorded, Error> {
        let scope = Scope::open(self, phase);
        let mut encoder = self.encoder(phase);
        self.record(phase, &mut encoder, record);
        let commands = encoder.finish();
        self.context.unheard.now(self.caught(scope))?;
        Ok(Recorded(commands))
    }

    /// Submits recorded commands. Before they begin, these slices get these bytes, of whole words.
    pub fn submit_recorded<'s, 'b>(
        &self,
        phase: &'static str,
        recorded: Recorded,
        contents: impl Iterator<Item = (&'s BufferSlice, &'b [u8])>,
    ) -> Pending<()> {
        let scope = Scope::open(self, phase);
        let queue = &self.context.queue;
        contents.for_each(|(to, bytes)| queue.write_buffer(&to.buffer, to.offset_bytes, bytes));
        self.submit_commands([recorded.0]);
        self.heard(self.caught(scope)).boxed()
    }

    /// Builds the pipelines of kernels whose inputs and outputs lie in buffers of their own.
    pub fn build(&self, variants: impl Iterator<Item = Variant>) -> Result<(), Error> {
        let scope = Scope::open(self, "building kernels");
        variants
            .for_each(|variant| drop(self.context.pipelines.get(&self.context.device, variant)));
        self.context.unheard.now(scope.close())
    }

    /// Submits the recording of `record`. The scope has the device's errors.
    fn issue(&self, phase: &'static str, record: impl FnOnce(&mut Recorder<'_>)) -> Scope {
        let scope = Scope::open(self, phase);
        let mut encoder = self.encoder(phase);
        self.record(phase, &mut encoder, record);
        self.submit_commands([encoder.finish()]);
        scope
    }

    /// The error of an earlier call that did not wait, or this call's own.
    fn heard<F: Future<Output = Result<(), Error>>>(
        &self,
        caught: F,
    ) -> impl Future<Output = Result<(), Error>> + use<F> {
        let this = self.clone();
        async move {
            let (earlier, own) = join(this.context.unheard.hear(), caught).await;
            earlier.and(own)
        }
    }

    /// Gives commands to the queue.
    pub(super) fn submit_commands<const N: usize>(
        &self,
        commands: [wgpu::CommandBuffer; N],
    ) -> wgpu::SubmissionIndex {
        trace::submission();
        self.context.queue.submit(commands)
    }

    /// The error that a scope has caught. After an error nothing made before is used again, because
    /// it may be invalid.
    fn caught(&self, scope: Scope) -> impl Future<Output = Result<(), Error>> + use<> {
        let caught = scope.close();
        let bindings = self.context.bindings.clone();
        async move { caught.await.inspect_err(|_| bindings.clear()) }
    }

    fn encoder(&self, phase: &'static str) -> wgpu::CommandEncoder {
        self.context
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(phase) })
    }

    /// Runs `record` on an encoder. No pass is open afterwards.
    fn record(
        &self,
        label: &'static str,
        encoder: &mut wgpu::CommandEncoder,
        record: impl FnOnce(&mut Recorder<'_>),
    ) {
        record(&mut Recorder { gpu: self, label, encoder, pass: None });
    }

    /// Makes the pipeline and the bind group of a dispatch. A uniform buffer with the parameters
    /// comes before the slices.
    fn bind(&self, key: &Key, slices: &[BufferSlice]) -> Bound {
        let device = &self.context.device;
        let shared_buffer = writes_a_buffer_it_reads(&key.variant, slices);
        let variant = Variant { shared_buffer, ..key.variant };
        let pipeline = self.context.pipelines.get(device, variant);
        let params = self.uniform(&key.params);
        let group = pipeline.bind(device, &params, slices.iter().map(BufferSlice::binding));
        Bound { pipeline, group }
    }

    /// A uniform buffer with these contents.
    fn uniform(&self, bytes: &[u8]) -> wgpu::Buffer {
        trace::allocation(bytes.len() as u64);
        let buffer = self.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("syncbn parameters"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.context.queue.write_buffer(&buffer, 0, bytes);
        buffer
    }
}
