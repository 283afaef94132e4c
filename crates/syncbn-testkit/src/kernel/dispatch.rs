//! A dispatch of a plan by itself, and what the kernel has left in its buffers.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytemuck::Pod;
use syncbn::low_level::plan::{Dispatch, LENGTHS_BYTES, Role};
use syncbn::low_level::shaders::{Access, Variant};
use wgpu::BufferUsages as Usage;

use super::{Gpu, pipeline};
use crate::adapter::adapter;

/// A device, with f64 where the adapter has it, which sources of the hostile compiler need.
fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let adapter = adapter();
        Gpu::open(&adapter, adapter.features() & wgpu::Features::SHADER_F64)
    })
}

/// The layout of what a variant binds, used or not.
fn layout(device: &wgpu::Device, variant: &Variant) -> wgpu::PipelineLayout {
    let storage = |access| wgpu::BufferBindingType::Storage { read_only: access == Access::Read };
    let kinds = std::iter::once(wgpu::BufferBindingType::Uniform)
        .chain(variant.bindings().iter().map(|binding| storage(binding.access)))
        .chain(variant.lengths_binding().map(|_| wgpu::BufferBindingType::Uniform));
    let entries: Vec<_> = kinds
        .zip(0..)
        .map(|(ty, binding)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        })
        .collect();
    let group = wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries };
    device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        bind_group_layouts: &[Some(&device.create_bind_group_layout(&group))],
        ..Default::default()
    })
}

/// The pipeline of a source that a variant has. Tests run a kernel many times, of which most time
/// would go into compiling it.
fn pipeline_of(gpu: &Gpu, variant: &Variant, source: &str) -> wgpu::ComputePipeline {
    static MADE: Mutex<Option<HashMap<(Variant, String), wgpu::ComputePipeline>>> =
        Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || pipeline(&gpu.device, source, Some(&layout(&gpu.device, variant)));
    let key = (*variant, source.to_owned());
    made.get_or_insert_default().entry(key).or_insert_with(make).clone()
}

/// Runs a dispatch with its kernel compiled from `source`, every buffer filled with the words that
/// `contents` gives.
pub fn run<P: Pod>(
    dispatch: &Dispatch<P>,
    source: &str,
    contents: impl Fn(Role) -> Vec<u32>,
) -> HashMap<Role, Vec<u32>> {
    run_padded(dispatch, source, contents, &[])
}

/// The same with the lengths of padded samples, as `plan::lengths_of` has them.
pub fn run_padded<P: Pod>(
    dispatch: &Dispatch<P>,
    source: &str,
    contents: impl Fn(Role) -> Vec<u32>,
    lengths: &[u32],
) -> HashMap<Role, Vec<u32>> {
    let gpu = gpu();
    let bindings = dispatch.variant.bindings();
    let params = gpu.buffer(bytemuck::bytes_of(&dispatch.params), Usage::UNIFORM);
    let of_role =
        |role| gpu.buffer(bytemuck::cast_slice(&contents(role)), Usage::STORAGE | Usage::COPY_SRC);
    let buffers: Vec<_> = bindings.iter().map(|binding| of_role(binding.role)).collect();
    let mut bytes = bytemuck::cast_slice(lengths).to_vec();
    bytes.resize(bytes.len().max(LENGTHS_BYTES as usize), 0);
    let lengths = gpu.buffer(&bytes, Usage::UNIFORM);
    let lengths = dispatch.variant.lengths_binding().map(|_| &lengths);
    let bound = std::iter::once(&params).chain(&buffers).chain(lengths);
    gpu.run(&pipeline_of(gpu, &dispatch.variant, source), bound, dispatch.workgroups);
    bindings
        .iter()
        .zip(&buffers)
        .map(|(binding, buffer)| (binding.role, gpu.words(buffer)))
        .collect()
}
