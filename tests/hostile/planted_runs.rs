//! Small shaders, and a device that runs them.

use std::sync::OnceLock;

use super::common::adapter;
use syncbn::wgpu;
use wgpu::util::DeviceExt;

/// A shader that computes `result` from `input`; `zero` is 0, which no compiler knows.
pub fn shader(body: &str) -> String {
    format!(
        "
struct Params {{ zero: u32 }}
struct Line {{ value: f32, shift: f32 }}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<u32>;

fn settled(v: f32) -> f32 {{
    return bitcast<f32>(bitcast<u32>(v) ^ params.zero);
}}

fn settled4(v: vec4<f32>) -> vec4<f32> {{
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(v) ^ vec4<u32>(params.zero));
}}

fn difference(a: f32, b: f32) -> f32 {{
    return settled(a - b);
}}

fn bare_difference(a: f32, b: f32) -> f32 {{
    return a - b;
}}

fn four(at: u32) -> vec4<f32> {{
    return vec4<f32>(input[at], input[at + 1u], input[at + 2u], input[at + 3u]);
}}

fn is_not_finite(v: f32) -> bool {{
    return (bitcast<u32>(v) & 0x7f800000u) == 0x7f800000u;
}}

fn flag_of(v: f32) -> f32 {{
    return select(0.0, 1.0, is_not_finite(v));
}}

@compute @workgroup_size(1)
fn main() {{
    var result = 0.0;
    {body}
    output[0] = bitcast<u32>(result);
}}
"
    )
}

/// A device with f64, in which the compiler computes exact products.
pub struct Machine {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

impl Machine {
    pub fn get() -> &'static Self {
        static MACHINE: OnceLock<Machine> = OnceLock::new();
        MACHINE.get_or_init(Self::new)
    }

    fn new() -> Self {
        let required_features = wgpu::Features::SHADER_F64;
        let descriptor = wgpu::DeviceDescriptor { required_features, ..Default::default() };
        let (device, queue) =
            pollster::block_on(adapter().request_device(&descriptor)).expect("a device with f64");
        Self { device, queue }
    }

    /// The bits of the result.
    pub fn run(&self, source: &str, input: &[f32]) -> u32 {
        let device = &self.device;
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        // Named, because a source need not use all of them.
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
        let entries = [
            entry(0, wgpu::BufferBindingType::Uniform),
            entry(1, storage(true)),
            entry(2, storage(false)),
        ];
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&pipeline_layout),
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
        let buffers = [
            (0, buffer(&[0; 16], wgpu::BufferUsages::UNIFORM)),
            (1, buffer(bytemuck::cast_slice(input), wgpu::BufferUsages::STORAGE)),
            (2, buffer(&[0; 4], wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC)),
        ];
        let entries: Vec<_> = buffers
            .iter()
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding: *binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        let seen = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(&buffers[2].1, 0, &seen, 0, 4);
        self.queue.submit([encoder.finish()]);
        seen.map_async(wgpu::MapMode::Read, .., |result| result.expect("a readback"));
        device.poll(wgpu::PollType::wait_indefinitely()).expect("a result");
        let bytes = seen.get_mapped_range(..).expect("mapped");
        u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
    }
}
