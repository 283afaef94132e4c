//! A device that runs one dispatch of a plan, and gives back what the kernel has left in its
//! buffers.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytemuck::Pod;
use syncbn::low_level::plan::{Dispatch, LENGTHS_BYTES, Role};
use syncbn::wgpu;
use wgpu::BufferUsages as Usage;

use super::common::adapter;
use super::common::kernel::Gpu;

/// A device, with f64 where the adapter has it, which sources of the hostile compiler need.
fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let adapter = adapter();
        Gpu::open(&adapter, adapter.features() & wgpu::Features::SHADER_F64)
    })
}

/// Runs a dispatch with its kernel compiled from `source`, every buffer filled with the words that
/// `contents` gives.
pub fn run<P: Pod>(
    dispatch: &Dispatch<P>,
    source: &str,
    contents: impl Fn(Role) -> Vec<u32>,
) -> HashMap<Role, Vec<u32>> {
    let gpu = gpu();
    let bindings = dispatch.variant.bindings();
    let params = gpu.buffer(bytemuck::bytes_of(&dispatch.params), Usage::UNIFORM);
    let of_role =
        |role| gpu.buffer(bytemuck::cast_slice(&contents(role)), Usage::STORAGE | Usage::COPY_SRC);
    let buffers: Vec<_> = bindings.iter().map(|binding| of_role(binding.role)).collect();
    let no_lengths = gpu.buffer(&[0; LENGTHS_BYTES as usize], Usage::UNIFORM);
    let lengths = dispatch.variant.lengths_binding().map(|_| &no_lengths);
    let bound = std::iter::once(&params).chain(&buffers).chain(lengths);
    gpu.run(&gpu.pipeline(source), bound, dispatch.workgroups);
    bindings
        .iter()
        .zip(&buffers)
        .map(|(binding, buffer)| (binding.role, gpu.words(buffer)))
        .collect()
}
