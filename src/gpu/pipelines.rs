//! Pipelines, built once per device and kernel variant.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use super::trace;
use crate::shaders::{Access, Dialect, Variant};

/// A function that rewrites the source of every kernel before it is compiled.
pub(crate) type Rewrite = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A compiled kernel, and the layout of its one bind group: a uniform buffer with the parameters at
/// binding 0, storage buffers from 1 on, and behind them for some kernels a uniform buffer with the
/// lengths of padded samples.
#[derive(Debug)]
pub(super) struct Pipeline {
    name: &'static str,
    compute: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

impl Pipeline {
    /// Compiles the entry point `main` of a source with these uses of its storage buffers.
    pub fn new(
        device: &wgpu::Device,
        name: &'static str,
        source: String,
        storage: impl Iterator<Item = Access>,
        has_lengths: bool,
    ) -> Self {
        trace::pipeline();
        let label = Some(name);
        let storage = storage
            .map(|access| wgpu::BufferBindingType::Storage { read_only: access == Access::Read });
        let lengths = has_lengths.then_some(wgpu::BufferBindingType::Uniform);
        let types = std::iter::once(wgpu::BufferBindingType::Uniform).chain(storage).chain(lengths);
        let entries: Vec<_> =
            types.zip(0..).map(|(ty, binding)| layout_entry(ty, binding)).collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
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
        Self { name, compute, layout }
    }

    /// A bind group of the parameters and of the other buffers in binding order.
    pub fn bind<'b>(
        &self,
        device: &wgpu::Device,
        params: &'b wgpu::Buffer,
        buffers: impl Iterator<Item = wgpu::BindingResource<'b>>,
    ) -> wgpu::BindGroup {
        trace::bind_group();
        let resources = std::iter::once(params.as_entire_binding()).chain(buffers);
        let entries: Vec<_> = resources
            .zip(0..)
            .map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(self.name),
            layout: &self.layout,
            entries: &entries,
        })
    }

    /// Records a dispatch of these workgroups in x and y.
    pub fn dispatch(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        group: &wgpu::BindGroup,
        [x, y]: [u32; 2],
    ) {
        pass.set_pipeline(&self.compute);
        pass.set_bind_group(0, group, &[]);
        pass.dispatch_workgroups(x, y, 1);
    }
}

fn layout_entry(ty: wgpu::BufferBindingType, binding: u32) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
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
    /// Compiles the kernels' sources, rewritten if there is a function for that.
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

/// The language that the driver of a backend gets. OpenGL may be older than 4.5, and OpenGL ES
/// takes the same source.
fn dialect_of(backend: wgpu::Backend) -> Dialect {
    if backend == wgpu::Backend::Gl { Dialect::Glsl430 } else { Dialect::Full }
}

fn build(device: &wgpu::Device, variant: Variant, rewrite: Option<&Rewrite>) -> Pipeline {
    let source = variant.source_in(dialect_of(device.adapter_info().backend));
    let source = match rewrite {
        Some(rewrite) => rewrite(&source),
        None => source,
    };
    let slots = variant.bindings().iter();
    let storage = slots.map(|slot| if variant.shared_buffer { Access::Write } else { slot.access });
    let has_lengths = variant.lengths_binding().is_some();
    Pipeline::new(device, variant.kernel.name(), source, storage, has_lengths)
}
