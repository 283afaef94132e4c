//! Owns the measurement of the exchange without the kernels: reading sums back, merging them,
//! sending the result.
//!
//! The layer runs over two values per channel and rank. In turn with it runs a bare round trip to
//! the same GPUs: it copies as many bytes as the sums have to a buffer, maps them and waits. The
//! time of the sums' kernels, by the GPUs' own clocks, is subtracted. Without timestamps it stays
//! in.

use std::error::Error;
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

/// Microseconds of the exchange of a pass, and of the bare round trip.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged {
    pub exchange_us: f64,
    pub round_trip_us: f64,
}

/// A layer like the one that is timed, over next to nothing.
pub struct Exchange {
    layer: Layer,
    set: Set,
    trips: Vec<RoundTrip>,
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
            trips: machine.gpus.iter().map(|gpu| RoundTrip::new(gpu, bytes)).collect(),
            rounds: ROUNDS * repeats,
        })
    }

    /// Measures the exchange of a pass and the round trip in turn; `None` where there is nothing to
    /// exchange or no GPU.
    pub fn measure(
        &mut self,
        machine: &Machine,
        pass: Pass,
    ) -> Result<Option<Exchanged>, Box<dyn Error>> {
        if self.trips.is_empty() {
            return Ok(None);
        }
        let mut exchanges = Vec::new();
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
            let trip = self.round_trip()?;
            if round > 0 {
                exchanges
                    .push((times.local + times.synchronize + times.apply).saturating_sub(sums));
                trips.push(trip);
            }
        }
        let micros = |times: Vec<Duration>| 1e3 * Samples::of(times.into_iter()).median;
        Ok(Some(Exchanged { exchange_us: micros(exchanges), round_trip_us: micros(trips) }))
    }

    /// Time of the kernels of the last call.
    fn kernels(&self, machine: &Machine) -> Result<Duration, Box<dyn Error>> {
        self.layer.wait()?;
        Ok(machine.device_time()?.unwrap_or_default())
    }

    /// All GPUs at the same time, as the layer asks them.
    fn round_trip(&self) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        self.trips.iter().for_each(RoundTrip::submit);
        self.trips.iter().try_for_each(RoundTrip::finish)?;
        Ok(started.elapsed())
    }
}

/// Bytes on a GPU, and where they are mapped.
struct RoundTrip {
    gpu: Gpu,
    source: wgpu::Buffer,
    staging: wgpu::Buffer,
}

impl RoundTrip {
    fn new(gpu: &Gpu, size: u64) -> Self {
        let buffer = |usage| {
            let label = Some("round trip");
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let source = buffer(BufferUsages::STORAGE | BufferUsages::COPY_SRC);
        let staging = buffer(BufferUsages::MAP_READ | BufferUsages::COPY_DST);
        Self { gpu: gpu.clone(), source, staging }
    }

    fn submit(&self) {
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.source, 0, &self.staging, 0, self.source.size());
        self.gpu.queue.submit([encoder.finish()]);
        self.staging.map_async(wgpu::MapMode::Read, .., drop);
    }

    fn finish(&self) -> Result<(), Box<dyn Error>> {
        self.gpu.device.poll(wgpu::PollType::wait_indefinitely())?;
        // Read, as the sums are.
        let bytes = self.staging.get_mapped_range(..)?.to_vec();
        std::hint::black_box(bytes);
        self.staging.unmap();
        Ok(())
    }
}
