//! Pipelines, built once per device and kernel variant.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use super::trace;
use crate::shaders::{Access, Dialect, Variant};

/// What the source of every kernel passes through before it is compiled.
pub(crate) type Rewrite = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A compiled kernel and the layout of its one bind group.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub compute: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

#[derive(Default)]
pub(super) struct Pipelines {
    built: Mutex<HashMap<Variant, Arc<Pipeline>>>,
    rewrite: Option<Rewrite>,
}

impl fmt::Debug for Pipelines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rewrites = self.rewrite.is_some();
        f.debug_struct("Pipelines")
            .field("built", &self.built)
            .field("rewrites", &rewrites)
            .finish()
    }
}

impl Pipelines {
    /// Compiles the kernels' own sources, or what becomes of them.
    pub fn new(rewrite: Option<Rewrite>) -> Self {
        Self { built: Mutex::default(), rewrite }
    }

    /// The pipeline of a variant. Building holds the lock: drivers have crashed on pipelines made
    /// at the same time.
    pub fn get(&self, device: &wgpu::Device, variant: Variant) -> Arc<Pipeline> {
        let mut built = trace::lock(&self.built);
        built
            .entry(variant)
            .or_insert_with(|| Arc::new(build(device, variant, self.rewrite.as_ref())))
            .clone()
    }
}

/// What a driver is given in the end. OpenGL may be older than 4.5, and OpenGL ES takes the same
/// source.
fn dialect_of(backend: wgpu::Backend) -> Dialect {
    if backend == wgpu::Backend::Gl { Dialect::Glsl430 } else { Dialect::Full }
}

fn build(device: &wgpu::Device, variant: Variant, rewrite: Option<&Rewrite>) -> Pipeline {
    trace::pipeline();
    let source = variant.source_in(dialect_of(device.adapter_info().backend));
    let source = match rewrite {
        Some(rewrite) => rewrite(&source),
        None => source,
    };
    let name = variant.kernel.name();
    let entries = layout_entries(variant);
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(name),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(name),
        bind_group_layouts: &[Some(&layout)],
        ..Default::default()
    });
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(name),
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        // The kernels write all workgroup memory before they read it.
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    Pipeline { compute, layout }
}

fn layout_entries(variant: Variant) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let storage = variant.bindings().iter().zip(1..).map(|(slot, binding)| {
        let read_only = slot.access == Access::Read && !variant.shared_buffer;
        entry(binding, wgpu::BufferBindingType::Storage { read_only })
    });
    std::iter::once(entry(0, wgpu::BufferBindingType::Uniform)).chain(storage).collect()
}
