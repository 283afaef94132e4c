//! Small shaders, and a device that runs them.

use std::sync::OnceLock;

use super::common::adapter;
use super::common::kernel::{self, Gpu};
use syncbn::wgpu;
use wgpu::BufferUsages as Usage;

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
pub struct Machine(Gpu);

impl Machine {
    pub fn get() -> &'static Self {
        static MACHINE: OnceLock<Machine> = OnceLock::new();
        MACHINE.get_or_init(|| Self(Gpu::open(&adapter(), wgpu::Features::SHADER_F64)))
    }

    /// The bits of the result.
    pub fn run(&self, source: &str, input: &[f32]) -> u32 {
        let Self(gpu) = self;
        let device = &gpu.device;
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
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let params = gpu.buffer(&[0; 16], Usage::UNIFORM);
        let input = gpu.buffer(bytemuck::cast_slice(input), Usage::STORAGE);
        let output = gpu.buffer(&[0; 4], Usage::STORAGE | Usage::COPY_SRC);
        let pipeline = kernel::pipeline(device, source, Some(&layout));
        gpu.run(&pipeline, [&params, &input, &output], [1, 1]);
        gpu.words(&output)[0]
    }
}
