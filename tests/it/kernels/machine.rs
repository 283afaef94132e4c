//! A device that runs one dispatch of a plan, and gives back what the kernel has left in its
//! buffers.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytemuck::Pod;
use syncbn::low_level::plan::{Dispatch, Role};
use syncbn::wgpu;
use wgpu::BufferUsages as Usage;
use wgpu::util::DeviceExt;

use super::common::adapter;

/// A device, with f64 where the adapter has it, which sources of the hostile compiler need.
fn device() -> &'static (wgpu::Device, wgpu::Queue) {
    static DEVICE: OnceLock<(wgpu::Device, wgpu::Queue)> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let adapter = adapter();
        let required_features = adapter.features() & wgpu::Features::SHADER_F64;
        let descriptor = wgpu::DeviceDescriptor { required_features, ..Default::default() };
        pollster::block_on(adapter.request_device(&descriptor)).expect("a device")
    })
}

/// Runs a dispatch with its kernel compiled from `source`, every buffer filled with the words that
/// `contents` gives.
pub fn run<P: Pod>(
    dispatch: &Dispatch<P>,
    source: &str,
    contents: impl Fn(Role) -> Vec<u32>,
) -> HashMap<Role, Vec<u32>> {
    let (device, queue) = device();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let buffer = |contents: &[u8], usage| {
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents,
            usage,
        })
    };
    let bindings = dispatch.variant.bindings();
    let params = buffer(bytemuck::bytes_of(&dispatch.params), Usage::UNIFORM);
    let of_role =
        |role| buffer(bytemuck::cast_slice(&contents(role)), Usage::STORAGE | Usage::COPY_SRC);
    let buffers: Vec<_> = bindings.iter().map(|binding| of_role(binding.role)).collect();
    let bound = std::iter::once(&params).chain(&buffers).zip(0..);
    let entries: Vec<_> = bound
        .map(|(buffer, binding)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    let layout = &pipeline.get_bind_group_layout(0);
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout,
        entries: &entries,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(dispatch.workgroups[0], dispatch.workgroups[1], 1);
    drop(pass);
    queue.submit([encoder.finish()]);
    bindings
        .iter()
        .zip(&buffers)
        .map(|(binding, buffer)| (binding.role, words(device, queue, buffer)))
        .collect()
}

fn words(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) -> Vec<u32> {
    let (size, usage) = (buffer.size(), Usage::COPY_DST | Usage::MAP_READ);
    let seen = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &seen, 0, size);
    queue.submit([encoder.finish()]);
    seen.map_async(wgpu::MapMode::Read, .., |result| result.expect("a readback"));
    device.poll(wgpu::PollType::wait_indefinitely()).expect("a result");
    bytemuck::pod_collect_to_vec(&seen.get_mapped_range(..).expect("mapped"))
}
