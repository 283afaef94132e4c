//! Recording dispatches and submitting them, with errors caught.

use std::time::Duration;

use bytemuck::Pod;
use futures::FutureExt;

use super::buffer::{BufferSlice, trace_allocation};
use super::clock::Clock;
use super::scope::Scope;
use super::{Gpu, Pending, readback};
use crate::error::Error;
use crate::plan::{Dispatch, Role};
use crate::shaders::{Access, Variant};

/// Records the dispatches of one submission.
pub(crate) struct Recorder<'a> {
    gpu: &'a Gpu,
    encoder: &'a mut wgpu::CommandEncoder,
}

impl Recorder<'_> {
    /// Records a dispatch of a plan; `slice_of` tells which slice fills a role.
    pub fn dispatch<'s, P: Pod>(&mut self, dispatch: &Dispatch<P>, slice_of: impl Fn(Role) -> &'s BufferSlice) {
        let context = &self.gpu.context;
        let bound = |&role: &Role| {
            dispatch.parts.of_role(role).map_or_else(|| slice_of(role).clone(), |part| slice_of(role).part(part))
        };
        let slices: Vec<BufferSlice> = dispatch.roles.iter().map(bound).collect();
        let shared_buffer = writes_a_buffer_it_reads(dispatch, &slices);
        let variant = Variant { shared_buffer, ..dispatch.variant };
        let pipeline = context.pipelines.get(&context.device, variant);
        let params = self.uniform(bytemuck::bytes_of(&dispatch.params));
        let uniform = wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() };
        let storage = slices.iter().zip(1..);
        let entries: Vec<_> = std::iter::once(uniform)
            .chain(storage.map(|(slice, binding)| wgpu::BindGroupEntry { binding, resource: slice.binding() }))
            .collect();
        let bind_group = context.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(variant.kernel.name()),
            layout: &pipeline.layout,
            entries: &entries,
        });
        let mut pass = self.encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some(variant.kernel.name()),
            timestamp_writes: context.clock.get().and_then(Clock::next_pass),
        });
        pass.set_pipeline(&pipeline.compute);
        pass.set_bind_group(0, &bind_group, &[]);
        let [x, y] = dispatch.workgroups;
        pass.dispatch_workgroups(x, y, 1);
    }

    /// Records that the first `count` queries go to a buffer.
    pub fn resolve(&mut self, queries: &wgpu::QuerySet, count: u32, to: &BufferSlice) {
        self.encoder.resolve_query_set(queries, 0..count, &to.buffer, to.offset_bytes);
    }

    /// A uniform buffer with these contents, of this submission alone.
    fn uniform(&self, bytes: &[u8]) -> wgpu::Buffer {
        trace_allocation(bytes.len() as u64);
        let buffer = self.gpu.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("syncbn parameters"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.gpu.context.queue.write_buffer(&buffer, 0, bytes);
        buffer
    }
}

/// Whether a buffer that the kernel writes is also one that it reads, as another slice.
fn writes_a_buffer_it_reads<P>(dispatch: &Dispatch<P>, slices: &[BufferSlice]) -> bool {
    let slots = || dispatch.variant.bindings().iter().zip(slices);
    let written = slots().filter(|(slot, _)| slot.access == Access::Write);
    written
        .into_iter()
        .any(|(_, out)| slots().any(|(slot, slice)| slot.access == Access::Read && slice.buffer == out.buffer))
}

impl Gpu {
    /// Submits what `record` records. The submission has taken place when this returns; the future tells of errors.
    pub fn submit(&self, phase: &'static str, record: impl FnOnce(&mut Recorder<'_>)) -> Pending<()> {
        let scope = Scope::open(self, phase);
        let mut encoder = self.encoder(phase);
        record(&mut Recorder { gpu: self, encoder: &mut encoder });
        self.context.queue.submit([encoder.finish()]);
        scope.close().boxed()
    }

    /// [`submit`](Self::submit) that tells of errors at once, as far as they are known: natively, all.
    pub fn submit_now(&self, phase: &'static str, record: impl FnOnce(&mut Recorder<'_>)) -> Result<(), Error> {
        self.submit(phase, record).now_or_never().unwrap_or(Ok(()))
    }

    /// Records what `record` records into the application's encoder. Errors that wgpu finds when the encoder ends or is
    /// submitted are the application's to hear.
    pub fn encode(
        &self,
        phase: &'static str,
        encoder: &mut wgpu::CommandEncoder,
        record: impl FnOnce(&mut Recorder<'_>),
    ) -> Result<(), Error> {
        let scope = Scope::open(self, phase);
        record(&mut Recorder { gpu: self, encoder });
        scope.close_now()
    }

    /// Submits what `record` records and copies `result` out behind it; the future gives its bytes.
    ///
    /// The submission has taken place when this returns. A thread of this device waits for it, so that the future may be
    /// driven by any executor.
    pub fn submit_and_read(
        &self,
        phase: &'static str,
        deadline: Duration,
        result: &BufferSlice,
        record: impl FnOnce(&mut Recorder<'_>),
    ) -> Pending<Vec<u8>> {
        let scope = Scope::open(self, phase);
        let mut encoder = self.encoder(phase);
        record(&mut Recorder { gpu: self, encoder: &mut encoder });
        let staging = readback::copy_out(&self.context.device, &mut encoder, result);
        let index = self.context.queue.submit([encoder.finish()]);
        let mapped = readback::map(&self.context.poller, &staging, index, deadline);
        let caught = scope.close();
        let device = self.name().to_owned();
        async move {
            caught.await?;
            mapped.await?;
            Ok(readback::take(&staging, &device)?)
        }
        .boxed()
    }

    fn encoder(&self, phase: &'static str) -> wgpu::CommandEncoder {
        self.context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(phase) })
    }
}
