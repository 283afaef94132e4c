//! Owns the copy kernels.

use std::error::Error;
use std::ops::Range;
use std::time::{Duration, Instant};

use syncbn::wgpu::{self, BufferUsages};

use super::{Copies, parts};
use crate::devices::Gpu;
use crate::timestamps::Timestamps;
use crate::timing::Times;

/// Invocations of a workgroup, the portable maximum.
const WORKGROUP_SIZE: u64 = 256;
/// Types that an invocation copies, with their bytes.
const ELEMENTS: [(&str, u64); 2] = [("u32", 4), ("vec4<u32>", 16)];

const SHADER: &str = "
@group(0) @binding(0) var<storage, read> source: array<ELEMENT>;
@group(0) @binding(1) var<storage, read_write> destination: array<ELEMENT>;

@compute @workgroup_size(256)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let index = id.y * workgroups.x * 256u + id.x;
    if index < arrayLength(&source) {
        destination[index] = source[index];
    }
}";

/// Copies on every GPU at the same time, each its share.
pub struct GpuCopies {
    gpus: Vec<GpuCopy>,
}

struct GpuCopy {
    gpu: Gpu,
    timestamps: Option<Timestamps>,
    tensor_bytes: u64,
    /// One per element type.
    pipelines: Vec<wgpu::ComputePipeline>,
    /// Source and destination.
    buffers: Vec<[wgpu::Buffer; 2]>,
    method: usize,
    /// The dispatches of one copy, for each place in the rotation.
    rotation: Vec<Vec<(wgpu::BindGroup, [u32; 2])>>,
    next: usize,
}

impl GpuCopies {
    pub fn new(gpus: &[Gpu], shares: &[u64], count: usize) -> Self {
        Self {
            gpus: gpus
                .iter()
                .zip(shares)
                .map(|(gpu, &bytes)| GpuCopy::new(gpu.clone(), bytes, count))
                .collect(),
        }
    }
}

impl Copies for GpuCopies {
    fn methods(&self) -> Vec<&'static str> {
        ELEMENTS.iter().map(|(element, _)| *element).collect()
    }

    fn prepare(&mut self, method: usize, tensors: f64) {
        self.gpus.iter_mut().for_each(|gpu| gpu.prepare(method, tensors));
    }

    fn run(&mut self) -> Result<Times, Box<dyn Error>> {
        let started = Instant::now();
        self.gpus.iter_mut().for_each(GpuCopy::submit);
        for copy in &self.gpus {
            copy.gpu.device.poll(wgpu::PollType::wait_indefinitely())?;
        }
        let wall = started.elapsed();
        // They run side by side: the slowest counts.
        let mut device = Some(Duration::ZERO);
        for copy in &self.gpus {
            let own = copy.timestamps.as_ref().map(Timestamps::read).transpose()?;
            device = device.zip(own).map(|(slowest, own)| slowest.max(own));
        }
        Ok(Times { device, wall })
    }
}

impl GpuCopy {
    fn new(gpu: Gpu, bytes: u64, count: usize) -> Self {
        let tensor_bytes = bytes.next_multiple_of(16);
        let pipelines =
            ELEMENTS.iter().map(|(element, _)| pipeline(&gpu.device, element)).collect();
        let buffer = || {
            let label = Some("copy");
            let usage = BufferUsages::STORAGE;
            let descriptor = wgpu::BufferDescriptor {
                label,
                size: tensor_bytes,
                usage,
                mapped_at_creation: true,
            };
            let buffer = gpu.device.create_buffer(&descriptor);
            // Not zeros, because a driver may not allocate memory for them.
            if let Ok(mut bytes) = buffer.get_mapped_range_mut(..) {
                bytes.slice(..).fill(0x5a);
            }
            buffer.unmap();
            buffer
        };
        let buffers = (0..count).map(|_| [buffer(), buffer()]).collect();
        let timestamps = gpu.has_timestamps().then(|| Timestamps::new(&gpu));
        Self {
            gpu,
            timestamps,
            tensor_bytes,
            pipelines,
            buffers,
            method: 0,
            rotation: Vec::new(),
            next: 0,
        }
    }

    fn prepare(&mut self, method: usize, tensors: f64) {
        let parts = parts(self.tensor_bytes, tensors);
        let layout = self.pipelines[method].get_bind_group_layout(0);
        let most_bytes = self.gpu.device.limits().max_storage_buffer_binding_size;
        let of_place = |place: usize| {
            let pairs = self.buffers.iter().cycle().skip(place * parts.len() % self.buffers.len());
            let pieces = pairs.zip(&parts).flat_map(|(pair, &bytes)| {
                pieces(bytes, most_bytes).map(move |piece| (pair, piece))
            });
            pieces.map(|(pair, piece)| self.piece(method, &layout, pair, piece)).collect()
        };
        self.rotation = (0..self.buffers.len()).map(of_place).collect();
        self.method = method;
    }

    /// A dispatch that copies a range of bytes of a pair.
    fn piece(
        &self,
        method: usize,
        layout: &wgpu::BindGroupLayout,
        pair: &[wgpu::Buffer; 2],
        piece: Range<u64>,
    ) -> (wgpu::BindGroup, [u32; 2]) {
        let bytes = piece.end - piece.start;
        let entries: Vec<_> = (0..)
            .zip(pair)
            .map(|(binding, buffer)| {
                let slice = wgpu::BufferBinding {
                    buffer,
                    offset: piece.start,
                    size: wgpu::BufferSize::new(bytes),
                };
                wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(slice) }
            })
            .collect();
        let descriptor =
            wgpu::BindGroupDescriptor { label: Some("copy"), layout, entries: &entries };
        let side = u64::from(self.gpu.device.limits().max_compute_workgroups_per_dimension);
        let workgroups = bytes.div_ceil(ELEMENTS[method].1 * WORKGROUP_SIZE);
        (self.gpu.device.create_bind_group(&descriptor), spread(workgroups, side))
    }

    fn submit(&mut self) {
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let timestamp_writes = self.timestamps.as_ref().map(Timestamps::of_a_pass);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("copy"),
            timestamp_writes,
        });
        pass.set_pipeline(&self.pipelines[self.method]);
        for (bind_group, [x, y]) in &self.rotation[self.next % self.rotation.len()] {
            pass.set_bind_group(0, bind_group, &[]);
            pass.dispatch_workgroups(*x, *y, 1);
        }
        drop(pass);
        self.gpu.queue.submit([encoder.finish()]);
        self.next += 1;
    }
}

/// The first bytes of a buffer, in ranges that one binding can span.
fn pieces(bytes: u64, most_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    // Every device can bind from a multiple of 256 on.
    let step = (most_bytes / 256 * 256).max(256);
    (0..bytes.div_ceil(step)).map(move |index| index * step..((index + 1) * step).min(bytes))
}

/// Workgroups over two dimensions, of which neither exceeds `side`.
fn spread(workgroups: u64, side: u64) -> [u32; 2] {
    let rows = workgroups.div_ceil(side).max(1);
    [workgroups.div_ceil(rows) as u32, rows as u32]
}

fn pipeline(device: &wgpu::Device, element: &str) -> wgpu::ComputePipeline {
    let source = SHADER.replace("ELEMENT", element);
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("copy"),
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("copy"),
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_everything_once() {
        let of = |bytes, most_bytes| {
            pieces(bytes, most_bytes).map(|piece| (piece.start, piece.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(1024, 1 << 27), [(0, 1024)]);
        assert_eq!(of(1 << 27, 1 << 27), [(0, 1 << 27)]);
        assert_eq!(of(1040, 600), [(0, 512), (512, 1024), (1024, 1040)]);
        assert_eq!(of(0, 600), []);
    }

    #[test]
    fn workgroups_cover_everything_in_two_dimensions() {
        assert_eq!(spread(7, 65_535), [7, 1]);
        assert_eq!(spread(100_352, 65_535), [50_176, 2]);
        let [x, y] = spread(200_001, 65_535);
        assert!(u64::from(x) * u64::from(y) >= 200_001 && x <= 65_535);
    }
}
