//! Owns the measurement of the exchange without the kernels: reading sums back, merging them,
//! sending the result.
//!
//! The layer runs over two values per channel and rank. In turn with it run two programs without
//! it, on the same GPUs and over as many bytes as the sums have. A bare round trip copies them to a
//! buffer, maps them and waits. A bare exchange has the submissions of the layer: a kernel before
//! the copy, and another one, in a second submission, that is given the bytes. Its kernels add 1 to
//! a word, so it takes what the driver takes for any program that exchanges.
//!
//! The time of the kernels of the first submission, by the GPUs' own clocks, is subtracted from
//! both exchanges. Without timestamps it stays in.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use syncbn::low_level::plan::CHANNEL_SUMS_BYTES;
use syncbn::wgpu::{self, BufferUsages};

use crate::devices::{Gpu, Machine};
use crate::inputs::{self, Form, Set};
use crate::layer::Layer;
use crate::timestamps::Timestamps;
use crate::timing::Samples;
use crate::workloads::Pass;

/// Repeats for each one of a pass. An exchange is short, and its interruptions are not.
const ROUNDS: usize = 5;
/// Values per channel on each rank.
const VALUES: usize = 2;

/// Microseconds of the exchange of a pass, of the bare exchange and of the bare round trip.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged {
    pub exchange_us: f64,
    pub bare_exchange_us: f64,
    pub round_trip_us: f64,
}

/// A kernel that does next to nothing.
const SHADER: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x == 0u {
        words[0] += 1u;
    }
}";

/// A layer like the one that is timed, over next to nothing.
pub struct Exchange {
    layer: Layer,
    set: Set,
    bare: Vec<Bare>,
    rounds: usize,
}

impl Exchange {
    pub fn new(
        machine: &Machine,
        channels: usize,
        form: Form,
        repeats: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let shards = vec![vec![VALUES, channels]; machine.ranks.len()];
        // The sums of the ranks that a GPU has.
        let ranks = machine.ranks.len().checked_div(machine.gpus.len()).unwrap_or(0);
        let bytes = (ranks * channels) as u64 * CHANNEL_SUMS_BYTES;
        Ok(Self {
            layer: Layer::new(channels, form, machine)?,
            set: inputs::set(&shards, form, &machine.ranks, 0)?,
            bare: machine.gpus.iter().map(|gpu| Bare::new(gpu, bytes)).collect(),
            rounds: ROUNDS * repeats,
        })
    }

    /// Measures the exchange of a pass and the two bare programs in turn; `None` where there is nothing to
    /// exchange or no GPU.
    pub fn measure(
        &mut self,
        machine: &Machine,
        pass: Pass,
    ) -> Result<Option<Exchanged>, Box<dyn Error>> {
        if self.bare.is_empty() {
            return Ok(None);
        }
        let mut exchanges = Vec::new();
        let mut bare_exchanges = Vec::new();
        let mut trips = Vec::new();
        // The first round builds kernels.
        for round in 0..=self.rounds {
            // Once for both, as they take about a millisecond together.
            machine.awake.wake()?;
            let Some(times) = self.layer.submit(pass, &mut self.set)? else { return Ok(None) };
            let all_kernels = self.kernels(machine)?;
            let sums = match pass {
                Pass::Backward => {
                    self.layer.submit_sums(&mut self.set)?;
                    self.kernels(machine)?
                }
                _ => {
                    self.layer.submit(Pass::Eval, &mut self.set)?;
                    all_kernels.saturating_sub(self.kernels(machine)?)
                }
            };
            let bare_exchange = self.bare_exchange()?;
            let trip = self.round_trip()?;
            if round > 0 {
                exchanges
                    .push((times.local + times.synchronize + times.apply).saturating_sub(sums));
                bare_exchanges.push(bare_exchange);
                trips.push(trip);
            }
        }
        let micros = |times: Vec<Duration>| 1e3 * Samples::of(times.into_iter()).median;
        Ok(Some(Exchanged {
            exchange_us: micros(exchanges),
            bare_exchange_us: micros(bare_exchanges),
            round_trip_us: micros(trips),
        }))
    }

    /// Time of the kernels of the last call.
    fn kernels(&self, machine: &Machine) -> Result<Duration, Box<dyn Error>> {
        self.layer.wait()?;
        Ok(machine.device_time()?.unwrap_or_default())
    }

    /// All GPUs at the same time, as the layer asks them.
    fn round_trip(&self) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        self.bare.iter().for_each(|gpu| gpu.read_back(false));
        for gpu in &self.bare {
            black_box(gpu.bytes()?);
        }
        Ok(started.elapsed())
    }

    /// The same, until the second submission. Its end is not awaited, as that of the layer is not.
    fn bare_exchange(&self) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        self.bare.iter().for_each(|gpu| gpu.read_back(true));
        let read: Vec<Vec<u8>> = self.bare.iter().map(Bare::bytes).collect::<Result<_, _>>()?;
        self.bare.iter().zip(&read).for_each(|(gpu, bytes)| gpu.submit_second(bytes));
        let elapsed = started.elapsed();
        let mut kernels = Duration::ZERO;
        for gpu in &self.bare {
            gpu.gpu.device.poll(wgpu::PollType::wait_indefinitely())?;
            let own = gpu.timestamps.as_ref().map(Timestamps::read).transpose()?;
            kernels = kernels.max(own.unwrap_or_default());
        }
        Ok(elapsed.saturating_sub(kernels))
    }
}

/// What both bare programs have on a GPU: bytes, where they are mapped, and a kernel.
struct Bare {
    gpu: Gpu,
    source: wgpu::Buffer,
    staging: wgpu::Buffer,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    timestamps: Option<Timestamps>,
}

impl Bare {
    fn new(gpu: &Gpu, size: u64) -> Self {
        let device = &gpu.device;
        let label = Some("bare exchange");
        let buffer = |usage| {
            let mapped_at_creation = false;
            device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
        };
        let source =
            buffer(BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(SHADER.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let resource = source.as_entire_binding();
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
        });
        Self {
            gpu: gpu.clone(),
            staging: buffer(BufferUsages::MAP_READ | BufferUsages::COPY_DST),
            source,
            pipeline,
            bind_group,
            timestamps: gpu.has_timestamps().then(|| Timestamps::new(gpu)),
        }
    }

    /// Submits the copy, behind the kernel if it is wanted, and asks for the bytes.
    fn read_back(&self, kernel: bool) {
        let mut encoder = self.encoder();
        if kernel {
            let timestamps = self.timestamps.as_ref().map(Timestamps::of_a_pass);
            self.record_kernel(&mut encoder, timestamps);
        }
        encoder.copy_buffer_to_buffer(&self.source, 0, &self.staging, 0, self.source.size());
        self.gpu.queue.submit([encoder.finish()]);
        self.staging.map_async(wgpu::MapMode::Read, .., drop);
    }

    /// Waits for the bytes and reads them, as sums are read.
    fn bytes(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        self.gpu.device.poll(wgpu::PollType::wait_indefinitely())?;
        let bytes = self.staging.get_mapped_range(..)?.to_vec();
        self.staging.unmap();
        Ok(bytes)
    }

    /// Gives the kernel these bytes.
    fn submit_second(&self, bytes: &[u8]) {
        let mut encoder = self.encoder();
        self.record_kernel(&mut encoder, None);
        self.gpu.queue.write_buffer(&self.source, 0, bytes);
        self.gpu.queue.submit([encoder.finish()]);
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    fn record_kernel(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        let label = Some("bare exchange");
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
}
