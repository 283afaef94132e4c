//! Kernels by themselves, run by wgpu alone.

pub mod dispatch;

use wgpu::util::DeviceExt;
use wgpu::{BufferBinding, BufferUsages as Usage};

/// A pipeline of a source that has one entry point; of what the source binds, unless a layout is
/// given.
pub fn pipeline(
    device: &wgpu::Device,
    source: &str,
    layout: Option<&wgpu::PipelineLayout>,
) -> wgpu::ComputePipeline {
    let module = &device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout,
        module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    })
}

/// Records a dispatch; the slices are bound from 0 on.
pub fn record(
    device: &wgpu::Device,
    encoder: &mut wgpu::CommandEncoder,
    pipeline: &wgpu::ComputePipeline,
    bound: &[BufferBinding<'_>],
    workgroups: [u32; 2],
) {
    let entries: Vec<_> = bound
        .iter()
        .zip(0..)
        .map(|(slice, binding)| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(slice.clone()),
        })
        .collect();
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    });
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(workgroups[0], workgroups[1], 1);
}

/// A device of the tests' adapter, and its queue.
pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
}

impl Gpu {
    /// One with these features.
    pub fn open(adapter: &wgpu::Adapter, required_features: wgpu::Features) -> Self {
        let descriptor = wgpu::DeviceDescriptor { required_features, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .expect("a device with these features");
        Self { device, queue }
    }

    pub fn pipeline(&self, source: &str) -> wgpu::ComputePipeline {
        pipeline(&self.device, source, None)
    }

    pub fn buffer(&self, contents: &[u8], usage: Usage) -> wgpu::Buffer {
        let descriptor = wgpu::util::BufferInitDescriptor { label: None, contents, usage };
        self.device.create_buffer_init(&descriptor)
    }

    /// Submits a dispatch over whole buffers, which are bound from 0 on.
    pub fn run<'a>(
        &self,
        pipeline: &wgpu::ComputePipeline,
        buffers: impl IntoIterator<Item = &'a wgpu::Buffer>,
        workgroups: [u32; 2],
    ) {
        let bound: Vec<_> =
            buffers.into_iter().map(wgpu::Buffer::as_entire_buffer_binding).collect();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        record(&self.device, &mut encoder, pipeline, &bound, workgroups);
        self.queue.submit([encoder.finish()]);
    }

    /// The words of a buffer, once all that was submitted before has ended.
    pub fn words(&self, buffer: &wgpu::Buffer) -> Vec<u32> {
        let size = buffer.size();
        let usage = Usage::COPY_DST | Usage::MAP_READ;
        let descriptor =
            wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let seen = self.device.create_buffer(&descriptor);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &seen, 0, size);
        self.queue.submit([encoder.finish()]);
        seen.map_async(wgpu::MapMode::Read, .., |result| result.expect("a readback"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("a result");
        bytemuck::pod_collect_to_vec(&seen.get_mapped_range(..).expect("mapped"))
    }
}
