//! Owns the measurement of an exchange by itself: reading sums back, merging them, sending the
//! result.
//!
//! The layer runs over two values per channel and rank, until its second submission is made. In
//! turn with it run two programs without it, on the same GPUs and over as many bytes as the sums
//! have. A bare round trip copies them to a buffer, maps them and waits. A bare exchange has the
//! submissions of the layer: before the copy a kernel that adds up a word of every invocation of
//! its workgroup, and in a second submission, which is recorded while the first one runs and is
//! given the bytes, a kernel that adds 1 to every word.
//!
//! All three poll the devices for a while, and then sleep. The times include the kernels, and those
//! of a layer's backward also the gradients of weight and bias, which the host writes. Timestamps
//! are not taken: a driver may end the work before each of them.

use std::error::Error;
use std::hint::black_box;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use syncbn::low_level::plan::CHANNEL_SUMS_BYTES;
use syncbn::wgpu::{self, BufferUsages};

use crate::devices::{Gpu, Machine};
use crate::inputs::{self, Form, Set};
use crate::layer::Layer;
use crate::timing::Samples;
use crate::workloads::Pass;

/// Repeats for each one of a pass. An exchange is short, and its interruptions are not.
const ROUNDS: usize = 5;
/// Values per channel on each rank.
const VALUES: usize = 2;
/// Time for which a layer polls a device before it sleeps.
const POLLING: Duration = Duration::from_micros(200);

/// Microseconds of the exchange of a pass, of the bare exchange and of the bare round trip.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged {
    pub exchange_us: f64,
    pub bare_exchange_us: f64,
    pub round_trip_us: f64,
}

/// The kernels of a bare exchange. The sum has the barriers of any sum over a workgroup.
const SHADER: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

var<workgroup> of_invocation: array<u32, 256>;

fn sum_of_sixteen(first: u32, step: u32) -> u32 {
    var sum = 0u;
    for (var i = 0u; i < 16u; i++) {
        sum += of_invocation[first + i * step];
    }
    return sum;
}

@compute @workgroup_size(256)
fn add_up(@builtin(local_invocation_index) invocation: u32) {
    of_invocation[invocation] = words[invocation % arrayLength(&words)];
    workgroupBarrier();
    if invocation < 16u {
        of_invocation[invocation] = sum_of_sixteen(invocation, 16u);
    }
    workgroupBarrier();
    if invocation == 0u {
        words[0] = sum_of_sixteen(0u, 1u);
    }
}

@compute @workgroup_size(256)
fn add_one(@builtin(local_invocation_index) invocation: u32) {
    for (var i = invocation; i < arrayLength(&words); i += 256u) {
        words[i] += 1u;
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
        let machine = &machine.without_timestamps()?;
        Ok(Self {
            layer: Layer::new(channels, form, machine)?,
            set: inputs::set(&shards, form, &machine.ranks, 0)?,
            bare: machine.gpus.iter().map(|gpu| Bare::new(gpu, bytes)).collect(),
            rounds: ROUNDS * repeats,
        })
    }

    /// Measures the exchange of a pass and the two bare programs in turn; `None` where there is
    /// nothing to exchange or no GPU.
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
            // Once for all three, as they take about a millisecond together.
            machine.awake.wake()?;
            // Neither always comes first.
            let before = if round % 2 == 0 { Some(self.bare_exchange()?) } else { None };
            let Some(exchange) = self.exchange(pass)? else { return Ok(None) };
            let bare_exchange = before.map_or_else(|| self.bare_exchange(), Ok)?;
            let trip = self.round_trip()?;
            if round > 0 {
                exchanges.push(exchange);
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

    /// A call of the layer, whose end is not awaited; `None` where it exchanges nothing.
    fn exchange(&mut self, pass: Pass) -> Result<Option<Duration>, Box<dyn Error>> {
        let started = Instant::now();
        let exchanges = self.layer.submit(pass, &mut self.set)?.is_some();
        let elapsed = started.elapsed();
        self.layer.wait()?;
        Ok(exchanges.then_some(elapsed))
    }

    /// All GPUs at the same time, as the layer asks them.
    fn round_trip(&self) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        let readers: Vec<Reader> = self.bare.iter().map(|gpu| gpu.read_back(false)).collect();
        for (gpu, reader) in self.bare.iter().zip(readers) {
            black_box(gpu.bytes(&reader)?);
        }
        Ok(started.elapsed())
    }

    /// The same, until the second submission.
    fn bare_exchange(&self) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        let readers: Vec<Reader> = self.bare.iter().map(|gpu| gpu.read_back(true)).collect();
        let second: Vec<wgpu::CommandBuffer> = self.bare.iter().map(Bare::second).collect();
        let mut read = Vec::new();
        for (gpu, reader) in self.bare.iter().zip(&readers) {
            read.push(gpu.bytes(reader)?);
        }
        for ((gpu, bytes), commands) in self.bare.iter().zip(&read).zip(second) {
            gpu.gpu.queue.write_buffer(&gpu.source, 0, bytes);
            gpu.gpu.queue.submit([commands]);
        }
        let elapsed = started.elapsed();
        for gpu in &self.bare {
            gpu.gpu.device.poll(wgpu::PollType::wait_indefinitely())?;
        }
        Ok(elapsed)
    }
}

/// Hears that bytes are mapped.
type Reader = mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>;

/// What both bare programs have on a GPU: bytes, where they are mapped, and two kernels.
struct Bare {
    gpu: Gpu,
    source: wgpu::Buffer,
    staging: wgpu::Buffer,
    add_up: Kernel,
    add_one: Kernel,
}

/// A kernel, bound to the bytes.
struct Kernel {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
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
        let kernel = |entry_point| {
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: None,
                module: &module,
                entry_point: Some(entry_point),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            let resource = source.as_entire_binding();
            let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
            });
            Kernel { pipeline, bind_group }
        };
        Self {
            gpu: gpu.clone(),
            staging: buffer(BufferUsages::MAP_READ | BufferUsages::COPY_DST),
            add_up: kernel("add_up"),
            add_one: kernel("add_one"),
            source,
        }
    }

    /// Submits the copy, behind the kernel if it is wanted, and asks for the bytes.
    fn read_back(&self, kernel: bool) -> Reader {
        let mut encoder = self.encoder();
        if kernel {
            self.add_up.record(&mut encoder);
        }
        encoder.copy_buffer_to_buffer(&self.source, 0, &self.staging, 0, self.source.size());
        self.gpu.queue.submit([encoder.finish()]);
        let (sender, reader) = mpsc::channel();
        self.staging.map_async(wgpu::MapMode::Read, .., move |mapped| {
            // Nobody hears it where an error has ended the program.
            let _ = sender.send(mapped);
        });
        reader
    }

    /// Waits for the bytes as the layer does, and reads them.
    fn bytes(&self, reader: &Reader) -> Result<Vec<u8>, Box<dyn Error>> {
        let started = Instant::now();
        let mapped = loop {
            match reader.try_recv() {
                Ok(mapped) => break mapped,
                Err(mpsc::TryRecvError::Disconnected) => return Err("nothing was mapped".into()),
                Err(mpsc::TryRecvError::Empty) => {}
            }
            if started.elapsed() < POLLING {
                self.gpu.device.poll(wgpu::PollType::Poll)?;
                std::thread::yield_now();
            } else {
                self.gpu.device.poll(wgpu::PollType::wait_indefinitely())?;
            }
        };
        mapped?;
        let bytes = self.staging.get_mapped_range(..)?.to_vec();
        self.staging.unmap();
        Ok(bytes)
    }

    /// The second submission.
    fn second(&self) -> wgpu::CommandBuffer {
        let mut encoder = self.encoder();
        self.add_one.record(&mut encoder);
        encoder.finish()
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }
}

impl Kernel {
    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor =
            wgpu::ComputePassDescriptor { label: Some("bare exchange"), timestamp_writes: None };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
}
