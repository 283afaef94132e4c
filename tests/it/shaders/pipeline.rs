//! Pipelines on wgpu's driverless device: its full validation of a shader against the layout that
//! the tables give.

use syncbn::low_level::plan::LENGTHS_BYTES;
use syncbn::wgpu;

use super::check::Interface;
use crate::common::kernel;

/// A device with WebGPU's guaranteed limits and no optional feature but those named.
pub fn device(required_features: wgpu::Features) -> wgpu::Device {
    wgpu::Device::noop(&wgpu::DeviceDescriptor { required_features, ..Default::default() }).0
}

/// wgpu's words where it makes no pipeline of this shader and these tables.
pub fn refusal(device: &wgpu::Device, source: &str, interface: &Interface) -> Option<String> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let params = buffer_entry(0, wgpu::BufferBindingType::Uniform, interface.params.size_bytes);
    let storage = interface.bindings.iter().zip(1..).map(|(binding, number)| {
        let read_only = interface.is_read_only(binding);
        buffer_entry(
            number,
            wgpu::BufferBindingType::Storage { read_only },
            binding.element_bytes.expect("the stride of every binding"),
        )
    });
    let lengths = interface
        .lengths
        .map(|number| buffer_entry(number, wgpu::BufferBindingType::Uniform, LENGTHS_BYTES as u32));
    let entries: Vec<_> = std::iter::once(params).chain(storage).chain(lengths).collect();
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &entries,
    });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    let _pipeline = kernel::pipeline(device, source, Some(&layout));
    pollster::block_on(scope.pop()).map(|error| error.to_string())
}

fn buffer_entry(
    binding: u32,
    ty: wgpu::BufferBindingType,
    min_bytes: u32,
) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: false,
            min_binding_size: wgpu::BufferSize::new(min_bytes.into()),
        },
        count: None,
    }
}
