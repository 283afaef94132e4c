//! What the tests of groups share: adapters that must be there, random batches, the f64 definition
//! and the comparison.
//!
//! Every test binary compiles its own copy and uses a part of it.
#![allow(dead_code)]

pub mod all_reduce;
pub mod events;
pub mod normal;
pub mod shapes;
pub mod shares;
pub mod tapped;

use std::sync::OnceLock;
use std::time::Duration;

use syncbn::stats::{GlobalStatistics, RunningStats};
use syncbn::{Device, ProcessGroup, SyncBatchNorm, Tensor, collective::LocalGroup};
use syncbn_reference::{self as reference, Affine, RankBatch, TrainForward};

/// How far y may be from the definition, in ulp of the largest |y| of its channel.
///
/// Six roundings of half an ulp lie between x and y: x − pivot, inv_std, scale, their product,
/// shift and the last sum. The normalized values average to 0, so that neither |bias| nor a half of
/// the largest |weight·(x − mean)·inv_std| exceeds the largest |y|: together at most 6 ulp of it.
/// Sums in f32 along a tree add about one more from mean and variance.
pub const TOLERANCE_ULP: f64 = 8.0;

/// How far statistics may be from the definition, relative to the deviation or the variance:
/// sixteen half ulp of f32, for the few dozen roundings of random sign on the way from a value to
/// the sum of its tile and its rank.
pub const STATISTICS_TOLERANCE: f64 = 16.0 / (1u64 << 24) as f64;

/// Whether tests run on the host, too. Those of a hostile compiler need not, which compiles no
/// kernel of the host.
pub const TESTS_HOST: bool = true;

/// An adapter for virtual devices: the software driver where there is one, which every test machine
/// has. The environment variable `SYNCBN_TEST_ADAPTER` asks for one whose name contains it.
pub fn adapter() -> wgpu::Adapter {
    let mut all = pollster::block_on(Device::adapters());
    let names: Vec<String> = all.iter().map(|adapter| adapter.get_info().name).collect();
    if let Ok(wanted) = std::env::var("SYNCBN_TEST_ADAPTER") {
        all.retain(|adapter| adapter.get_info().name.contains(&wanted));
    }
    all.pop().unwrap_or_else(|| {
        panic!("GPU tests need an adapter, found {names:?}: run scripts/test.sh, which installs a software driver")
    })
}

/// One device of each kind: a virtual GPU and the host.
pub fn devices() -> Vec<Device> {
    vec![virtual_gpus()[0].clone(), Device::host()]
}

/// Three virtual GPUs on one adapter, opened once per test binary, because opening and compiling
/// cost more than a test.
pub fn virtual_gpus() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let adapter = adapter();
        (0..3).map(|number| crate::common::open(&adapter, number)).collect()
    })
}

/// Opens a device. The tests of a hostile compiler have another way to, in which the number tells
/// devices from each other.
pub fn open(adapter: &wgpu::Adapter, _number: u64) -> Device {
    pollster::block_on(Device::from_adapter(adapter)).expect("a device")
}

/// Opens a device without any optional feature, likewise.
pub fn open_portable(adapter: &wgpu::Adapter, _number: u64) -> Device {
    let (device, queue) = own_device(adapter, |_| {});
    Device::from_wgpu(device, queue).expect("a device")
}

/// A device that the test made itself, as an application does, with what `change` makes of the
/// portable limits.
pub fn own_device(
    adapter: &wgpu::Adapter,
    change: impl FnOnce(&mut wgpu::Limits),
) -> (wgpu::Device, wgpu::Queue) {
    let mut required_limits = wgpu::Limits::default();
    change(&mut required_limits);
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).expect("a device with these limits")
}

/// Which devices the ranks of a group are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Virtual GPUs, one after the other; more ranks than devices share them.
    Gpu,
    /// The host for every rank.
    Host,
    /// GPU and host in turn.
    Mixed,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Gpu, Self::Host, Self::Mixed];

    /// Those whose kernels a test is about.
    pub fn tested() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|&kind| crate::common::TESTS_HOST || kind == Self::Gpu)
    }

    /// The devices of a group of so many ranks.
    pub fn devices(self, ranks: usize) -> Vec<Device> {
        let gpus = virtual_gpus();
        let device = |rank: usize| match self {
            Self::Mixed if rank % 2 == 1 => Device::host(),
            Self::Host => Device::host(),
            Self::Gpu | Self::Mixed => gpus[rank % gpus.len()].clone(),
        };
        (0..ranks).map(device).collect()
    }
}

/// What one rank holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
}

impl Batch {
    pub fn new(dims: &[usize], value: impl FnMut(usize) -> f32) -> Self {
        let count = dims.iter().product();
        Self { dims: dims.to_vec(), values: (0..count).map(value).collect() }
    }

    /// Values in −1 … 1.
    pub fn random(dims: &[usize], random: &mut Random) -> Self {
        Self::new(dims, |_| random.next() as f32)
    }

    /// The channel of the value at `index`.
    pub fn channel(&self, index: usize) -> usize {
        channel_of(&self.dims, index)
    }

    pub fn upload(&self, device: &Device) -> Tensor {
        device.upload(&self.dims, &self.values).expect("an upload")
    }
}

fn channel_of(dims: &[usize], index: usize) -> usize {
    index / dims[2..].iter().product::<usize>() % dims[1]
}

/// The batches, each on the device of its rank.
pub fn upload(group: &SyncBatchNorm, batches: &[Batch]) -> Vec<Tensor> {
    batches.iter().zip(group.devices()).map(|(batch, device)| batch.upload(device)).collect()
}

/// The values of tensors.
pub fn read(tensors: &[Tensor]) -> Vec<Vec<f32>> {
    tensors.iter().map(|tensor| pollster::block_on(tensor.to_vec()).expect("a readback")).collect()
}

/// Weight and bias of a layer.
#[derive(Clone, Debug)]
pub struct Parameters {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Parameters {
    pub fn random(channels: usize, random: &mut Random) -> Self {
        Self { weight: random.values(channels), bias: random.values(channels) }
    }

    pub fn set(&self, group: &mut SyncBatchNorm) {
        group
            .set_parameters(Some(&self.weight), Some(&self.bias))
            .expect("parameters of the right length");
    }
}

/// The f64 definition of training on these batches.
pub fn definition(batches: &[Batch], parameters: Option<&Parameters>, eps: f64) -> TrainForward {
    with_ranks(batches, parameters, |ranks, affine| {
        reference::forward_train(ranks, affine, eps).expect("valid")
    })
}

/// The f64 definition of y for statistics that are given.
pub fn definition_with(
    batches: &[Batch],
    parameters: Option<&Parameters>,
    (mean, var): (&[f64], &[f64]),
    eps: f64,
) -> Vec<Vec<f64>> {
    let y = |ranks: &[RankBatch<'_>], affine: Affine<'_>| {
        reference::forward_with_statistics(ranks, mean, var, affine, eps).expect("valid")
    };
    with_ranks(batches, parameters, y)
}

fn with_ranks<T>(
    batches: &[Batch],
    parameters: Option<&Parameters>,
    apply: impl FnOnce(&[RankBatch<'_>], Affine<'_>) -> T,
) -> T {
    let values: Vec<Vec<f64>> = batches.iter().map(|batch| widened(&batch.values)).collect();
    let ranks: Vec<RankBatch<'_>> = batches
        .iter()
        .zip(&values)
        .map(|(batch, values)| RankBatch { dims: &batch.dims, values })
        .collect();
    let weight = parameters.map(|parameters| widened(&parameters.weight));
    let bias = parameters.map(|parameters| widened(&parameters.bias));
    apply(&ranks, Affine { weight: weight.as_deref(), bias: bias.as_deref() })
}

pub fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// The worst error of y in ulp of the largest |y| of its channel over all ranks, or what is wrong:
/// an error above `tolerance_ulp`, another number of values, or a NaN on one side alone.
pub fn compare(
    batches: &[Batch],
    found: &[Vec<f32>],
    expected: &[Vec<f64>],
    tolerance_ulp: f64,
) -> Result<f64, String> {
    let channels = batches[0].dims[1];
    let mut largest = vec![0f64; channels];
    for (batch, expected) in batches.iter().zip(expected) {
        for (index, y) in expected.iter().enumerate() {
            let largest = &mut largest[batch.channel(index)];
            *largest = largest.max(y.abs());
        }
    }
    let mut worst = 0f64;
    for (rank, ((batch, found), expected)) in batches.iter().zip(found).zip(expected).enumerate() {
        if found.len() != expected.len() {
            return Err(format!(
                "rank {rank} has {} values, expected {}",
                found.len(),
                expected.len()
            ));
        }
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let channel = batch.channel(index);
            let error = (f64::from(found) - expected).abs() / ulp(largest[channel]);
            if found.is_nan() && expected.is_nan() {
                continue;
            }
            if error.is_nan() || error > tolerance_ulp {
                return Err(format!(
                    "rank {rank} of dims {:?}, value {index} (channel {channel}): {found:e}, expected {expected:e}: \
                     {error:.2} ulp of {:e}, allowed {tolerance_ulp}",
                    batch.dims, largest[channel]
                ));
            }
            worst = worst.max(error);
        }
    }
    Ok(worst)
}

/// The distance from |value| to the next f32.
pub fn ulp(value: f64) -> f64 {
    let value = value.abs() as f32;
    f64::from(value.next_up()) - f64::from(value)
}

/// Whether the group's statistics are those of the definition.
pub fn compare_statistics(
    found: &GlobalStatistics,
    expected: &reference::BatchStatistics,
) -> Result<(), String> {
    for (channel, found) in found.channels().iter().enumerate() {
        let (mean, var) = (expected.mean[channel], expected.var_biased[channel]);
        let mean_error = (found.mean - mean).abs();
        let var_error = (found.var_biased() - var).abs();
        // The definition's own rounding, of f64.
        let allowed_mean = STATISTICS_TOLERANCE * var.sqrt() + mean.abs() * f64::EPSILON;
        if found.count != expected.count
            || !(mean_error <= allowed_mean && var_error <= STATISTICS_TOLERANCE * var)
        {
            return Err(format!(
                "channel {channel}: {found:?}, expected {} values, {mean}, {var}",
                expected.count
            ));
        }
    }
    Ok(())
}

/// Whether running statistics are within rounding of `expected`, (mean, variance) per channel;
/// `deviation` is that of the batches, to which the error of a mean is relative.
pub fn compare_running(
    found: &RunningStats,
    expected: &reference::Running,
    deviation: f64,
) -> Result<(), String> {
    for (name, found, expected, scale) in [
        ("running_mean", &found.mean, &expected.mean, deviation),
        ("running_var", &found.var, &expected.var, 0.0),
    ] {
        for (channel, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let allowed = STATISTICS_TOLERANCE * (expected.abs() + scale);
            let error = (f64::from(found) - expected).abs();
            if error.is_nan() || error > allowed {
                return Err(format!(
                    "{name}[{channel}] is {found}, expected {expected} within {allowed:e}"
                ));
            }
        }
    }
    Ok(())
}

/// The bits of values, for comparisons in which a NaN equals itself.
pub fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    values.iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect()
}

/// Numbers from a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// Uniform in −1 … 1.
    pub fn next(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// Of mean 0 and deviation 1: the sum of twelve uniform numbers of variance 1/12.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() / 2.0
    }

    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next() as f32).collect()
    }
}

/// The ranks of a new group in this process, each of which waits so long for its peers.
pub fn process_groups(world_size: usize, deadline: Duration) -> Vec<ProcessGroup> {
    let group = |rank| ProcessGroup::new(rank).with_deadline(deadline);
    LocalGroup::ranks(world_size).into_iter().map(group).collect()
}

/// Runs a body for every rank at the same time, each on a thread of its own; the results in rank
/// order.
pub fn on_threads<R: Send, T: Send>(ranks: Vec<R>, body: impl Fn(R) -> T + Sync) -> Vec<T> {
    let body = &body;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            ranks.into_iter().map(|rank| scope.spawn(move || body(rank))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a rank that does not panic"))
            .collect()
    })
}

/// Whether the adapter has f16 of its own. The one that tests run on must, unless another was asked
/// for by name.
pub fn assert_native_f16(adapter: &wgpu::Adapter) -> bool {
    let info = adapter.get_info();
    let native = adapter.features().contains(wgpu::Features::SHADER_F16);
    if !native {
        assert!(
            std::env::var_os("SYNCBN_TEST_ADAPTER").is_some(),
            "{} has no SHADER_F16, so that native f16 goes untested: name the adapter in SYNCBN_TEST_ADAPTER if that is meant",
            info.name
        );
        println!("{} has no SHADER_F16: native f16 is not tested here", info.name);
    }
    native
}
