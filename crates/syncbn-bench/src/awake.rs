//! Owns the work that keeps GPUs at full clock: a driver lowers the clock of a GPU with little to
//! do, as one has whose runs of some 100 µs are each waited for, and every kernel slows down.
//!
//! Before a timed run [`Awake::wake`] keeps all cores of all devices busy. Software drivers have no
//! clock of their own and are left alone.

use std::error::Error;
use std::time::{Duration, Instant};

use syncbn::wgpu::{self, BufferUsages};

use crate::devices::Gpu;

/// How long devices are kept busy, at least.
const BUSY: Duration = Duration::from_millis(5);
/// Workgroups of 256 that fill a large GPU: 132 multiprocessors hold 8 each.
const WORKGROUPS: u32 = 1024;
/// Where calibration begins.
const FEWEST_ROUNDS: u32 = 1;

/// Rounds of xorshift, which never turns a state into 0. No compiler knows that, or a shorter way
/// to the last state. Nothing is written, so that nothing leaves a cache.
const SHADER: &str = "
@group(0) @binding(0) var<uniform> rounds: u32;
@group(0) @binding(1) var<storage, read_write> zeros: atomic<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var state = id.x + 1u;
    for (var round = 0u; round < rounds; round++) {
        state ^= state << 13u;
        state ^= state >> 17u;
        state ^= state << 5u;
    }
    if state == 0u {
        atomicAdd(&zeros, 1u);
    }
}";

/// The devices that are kept at full clock.
#[derive(Clone, Debug, Default)]
pub struct Awake {
    devices: Vec<Busy>,
}

impl Awake {
    /// Of the GPUs that are not a software driver's. Takes some 10 ms, in which the length of the
    /// kernel is found.
    pub fn new(gpus: &[Gpu]) -> Result<Self, Box<dyn Error>> {
        let is_hardware = |gpu: &&Gpu| {
            let adapter = gpu.device.adapter_info();
            adapter.device_type != wgpu::DeviceType::Cpu && adapter.backend != wgpu::Backend::Noop
        };
        Self::of(gpus.iter().filter(is_hardware))
    }

    /// Of all of these.
    fn of<'a>(gpus: impl Iterator<Item = &'a Gpu>) -> Result<Self, Box<dyn Error>> {
        let awake = Self { devices: gpus.map(Busy::new).collect() };
        awake.calibrate(BUSY)?;
        Ok(awake)
    }

    /// The same for the first device alone.
    pub fn first(&self) -> Self {
        Self { devices: self.devices.iter().take(1).cloned().collect() }
    }

    /// Keeps every device busy, all at the same time, and waits for them. Does nothing where there
    /// are none.
    pub fn wake(&self) -> Result<(), Box<dyn Error>> {
        if self.devices.is_empty() {
            return Ok(());
        }
        // Again if the kernel has become shorter, since the clock was low at calibration.
        let started = Instant::now();
        while started.elapsed() < BUSY {
            self.run()?;
        }
        Ok(())
    }

    /// Doubles the rounds until all devices together take this long; returns the rounds.
    fn calibrate(&self, least: Duration) -> Result<u32, Box<dyn Error>> {
        let mut rounds = FEWEST_ROUNDS;
        if self.devices.is_empty() {
            return Ok(rounds);
        }
        self.devices.iter().for_each(|device| device.set(rounds));
        // A driver may compile at the first run.
        self.run()?;
        // Two, because other work may hold up one.
        while self.run()?.min(self.run()?) < least {
            rounds = rounds
                .checked_mul(2)
                .ok_or("the kernel that keeps GPUs busy takes no time, however long it is")?;
            self.devices.iter().for_each(|device| device.set(rounds));
        }
        Ok(rounds)
    }

    /// Runs the kernel once on every device; returns the time until all are done.
    fn run(&self) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        self.devices.iter().for_each(Busy::submit);
        for Busy { gpu, .. } in &self.devices {
            gpu.device.poll(wgpu::PollType::wait_indefinitely())?;
        }
        Ok(started.elapsed())
    }
}

/// A device, and the kernel that keeps it busy.
#[derive(Clone, Debug)]
struct Busy {
    gpu: Gpu,
    pipeline: wgpu::ComputePipeline,
    rounds: wgpu::Buffer,
    bind_group: wgpu::BindGroup,
}

impl Busy {
    fn new(gpu: &Gpu) -> Self {
        let device = &gpu.device;
        let label = Some("awake");
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
        let word = |usage| {
            let descriptor =
                wgpu::BufferDescriptor { label, size: 4, usage, mapped_at_creation: false };
            device.create_buffer(&descriptor)
        };
        let rounds = word(BufferUsages::UNIFORM | BufferUsages::COPY_DST);
        let zeros = word(BufferUsages::STORAGE);
        let entries = [(0, &rounds), (1, &zeros)].map(|(binding, buffer)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        });
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Self { gpu: gpu.clone(), pipeline, rounds, bind_group }
    }

    fn set(&self, rounds: u32) {
        self.gpu.queue.write_buffer(&self.rounds, 0, &rounds.to_ne_bytes());
    }

    fn submit(&self) {
        let mut encoder =
            self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("awake"),
            timestamp_writes: None,
        });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(WORKGROUPS, 1, 1);
        drop(pass);
        self.gpu.queue.submit([encoder.finish()]);
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;
    use syncbn::{DType, Layout, low_level::Epilogue};

    use super::*;
    use crate::devices::{Machine, open};
    use crate::inputs::{self, Form};
    use crate::layer::Layer;
    use crate::workloads::Pass;

    fn machine(ranks: usize) -> Machine {
        let wanted = std::env::var("SYNCBN_TEST_ADAPTER").ok();
        block_on(open(wanted.as_deref(), ranks, false)).expect("devices")
    }

    #[test]
    fn calibration_ends_at_a_kernel_that_takes_as_long_as_it_should() {
        let machine = machine(2);
        let awake = Awake { devices: machine.gpus.iter().map(Busy::new).collect() };
        assert_eq!(awake.devices.len(), machine.gpus.len());
        if machine.gpus.is_empty() {
            return;
        }
        let rounds = awake.calibrate(Duration::from_millis(20)).expect("a kernel that runs");
        assert!(rounds >= FEWEST_ROUNDS, "{rounds} rounds");
        // Other work on the machine makes runs longer, never shorter. Of a kernel that a compiler
        // has removed, 64 times the rounds would take no longer.
        let shortest = |rounds| {
            awake.devices.iter().for_each(|device| device.set(rounds));
            (0..5).map(|_| awake.run().expect("a run")).min().expect("five")
        };
        let rounds = rounds.max(256);
        let [short, long] = [rounds / 64, rounds].map(shortest);
        println!("{rounds} rounds take {long:?}, {} {short:?}", rounds / 64);
        assert!(long > 2 * short, "{rounds} rounds take {long:?}, a 64th {short:?}");
    }

    #[test]
    fn devices_are_busy_for_as_long_as_they_should_where_that_is_asked_for() {
        let machine = machine(1);
        let awake = Awake::of(machine.gpus.iter()).expect("calibrated");
        let started = Instant::now();
        awake.wake().expect("a run");
        assert!(started.elapsed() >= BUSY || machine.gpus.is_empty());
        assert_eq!(awake.first().devices.len(), machine.gpus.len());
    }

    #[test]
    fn software_drivers_and_the_host_are_left_alone() {
        let machine = machine(1);
        let is_software =
            |gpu: &Gpu| gpu.device.adapter_info().device_type == wgpu::DeviceType::Cpu;
        let hardware = machine.gpus.iter().filter(|gpu| !is_software(gpu)).count();
        assert_eq!(machine.awake.devices.len(), hardware);
        let host = block_on(open(Some("host"), 1, false)).expect("the host");
        host.awake.wake().expect("nothing to do");
        assert!(host.awake.devices.is_empty());
    }

    #[test]
    fn what_keeps_a_device_busy_is_no_time_of_the_layer() {
        const DIMS: [usize; 3] = [2, 4, 8];
        let machine = machine(1);
        if !machine.has_clock() {
            return;
        }
        let awake = Awake::of(machine.gpus.iter()).expect("calibrated");
        let dtype = DType::F32;
        let layout = Layout::ChannelsFirst;
        let epilogue = Epilogue::NONE;
        let form = Form { dtype, layout, epilogue, mask: false };
        let mut layer = Layer::new(DIMS[1], form, &machine).expect("a layer");
        let mut set = inputs::set(&[DIMS.to_vec()], form, &machine.ranks, 0).expect("inputs");
        layer.submit(Pass::Eval, &mut set).expect("a pass");
        layer.wait().expect("an end");
        assert!(machine.device_time().expect("a time") > Some(Duration::ZERO));
        awake.wake().expect("a run");
        assert_eq!(machine.device_time().expect("a time"), Some(Duration::ZERO));
    }
}
