//! Kernels of a few lines, run over an array of words.

use pollster::block_on;
use wgpu::util::DeviceExt;

use super::common::adapter;

/// Invocations of a workgroup.
const WORKGROUP: u32 = 256;

/// Writes one word per invocation: `result` as an expression of `i`, with `words` and what `text` declares.
fn kernel(text: &str, result: &str) -> String {
    format!(
        "{text}
@group(0) @binding(1) var<storage, read_write> results: array<u32>;

@compute @workgroup_size({WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let i = id.x;
    if (i < arrayLength(&results)) {{
        results[i] = {result};
    }}
}}
"
    )
}

const WORDS: &str = "@group(0) @binding(0) var<storage, read> words: array<u32>;\n";

/// Encodes every word as an f32.
pub fn encoding_kernel(encode: &str) -> String {
    kernel(&format!("{encode}\n{WORDS}"), "encode(bitcast<f32>(words[i]))")
}

/// Decodes every word as an f16.
pub fn decoding_kernel(decode: &str) -> String {
    kernel(&format!("{decode}\n{WORDS}"), "bitcast<u32>(decode_f16(words[i]))")
}

/// Loads every element as f32.
pub fn loading_kernel(load: &str) -> String {
    kernel(&load.replace("OPERAND", "x").replace("BINDING", "0"), "bitcast<u32>(load_x(i))")
}

pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

impl Gpu {
    pub fn open(native_f16: bool) -> Self {
        let features = if native_f16 { wgpu::Features::SHADER_F16 } else { wgpu::Features::empty() };
        let descriptor = wgpu::DeviceDescriptor { required_features: features, ..Default::default() };
        let (device, queue) = block_on(adapter().request_device(&descriptor)).expect("a device");
        Self { device, queue }
    }

    /// So many results of a kernel over these words.
    pub fn run(&self, source: &str, words: &[u32], results: usize) -> Vec<u32> {
        let Self { device, queue } = self;
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
        let input = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: bytemuck::cast_slice(words),
            usage: wgpu::BufferUsages::STORAGE,
        });
        let size = 4 * results as u64;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let output = buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
        let staging = buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: input.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: output.as_entire_binding() },
            ],
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            pass.dispatch_workgroups((results as u32).div_ceil(WORKGROUP), 1, 1);
        }
        encoder.copy_buffer_to_buffer(&output, 0, &staging, 0, size);
        queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("a mapping"));
        device.poll(wgpu::PollType::wait_indefinitely()).expect("an end");
        let view = staging.get_mapped_range(..).expect("a view");
        bytemuck::pod_collect_to_vec(&view)
    }
}
