//! Two virtual devices, random batches, one training step of any normalization, and comparison.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use burn::module::{Module, ModuleDisplay, Param};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor, TensorData};
use pollster::block_on;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use syncbn::ProcessGroup;
use syncbn::collective::LocalGroup;
use syncbn_burn::{BatchNormConfig as AloneConfig, Rank, SyncBatchNorm, SyncBatchNormConfig};
use syncbn_reference::{Affine, RankBatch, backward_train, forward_train};

pub const CHANNELS: usize = 3;
pub const EPSILON: f64 = 1e-5;
/// Longer than a step takes on a busy machine, shorter than a test's patience.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub type Opened = (Device, WgpuSetup);

/// Two virtual devices on the machine's software adapter, or its only one. One test uses them at a
/// time: a device is one rank of one group, and opening one for every test would compile every
/// kernel anew.
pub fn devices() -> Devices {
    static DEVICES: LazyLock<Mutex<[Opened; 2]>> = LazyLock::new(|| {
        let adapters = block_on(syncbn::Device::adapters());
        let adapter =
            adapters.last().expect("an adapter: scripts/test.sh installs a software driver");
        let open = || {
            let setup = syncbn_burn::setup(adapter).unwrap();
            (Device::wgpu_options().setup(setup.clone()).init().unwrap(), setup)
        };
        Mutex::new([open(), open()])
    });
    Devices(DEVICES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The devices, until a test has ended and they have done what it submitted: a software driver that
/// still computes when its process ends may crash.
pub struct Devices(MutexGuard<'static, [Opened; 2]>);

impl std::ops::Deref for Devices {
    type Target = [Opened; 2];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        for (_, setup) in self.0.iter() {
            // A lost device has nothing to wait for.
            let _ = setup.device.poll(wgpu::PollType::wait_indefinitely());
        }
    }
}

/// The ranks of a new group, one per device.
pub fn ranks(devices: &[Opened], deadline: Duration) -> Vec<Rank> {
    let groups = LocalGroup::ranks(devices.len()).into_iter();
    let groups = groups.map(|rank| ProcessGroup::new(rank).with_deadline(deadline));
    devices
        .iter()
        .zip(groups)
        .map(|((device, setup), group)| Rank::of_device(device, setup, group).unwrap())
        .collect()
}

/// Runs a function on a thread per rank.
pub fn on_threads<T: Send>(ranks: Vec<Rank>, work: impl Fn(usize, Rank) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads = ranks
            .into_iter()
            .enumerate()
            .map(|(index, rank)| scope.spawn(move || work(index, rank)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank's thread")).collect()
    })
}

/// Burn's normalization or ours.
pub trait Norm: Module + ModuleDisplay {
    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D>;
    fn set(self, gamma: &[f32], beta: &[f32]) -> Self;
    fn running(&self) -> [Vec<f32>; 2];
    fn affine(&self) -> [Tensor<1>; 2];
}

macro_rules! norm {
    ($name:ty) => {
        impl Norm for $name {
            fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
                self.forward(x)
            }
            fn set(mut self, gamma: &[f32], beta: &[f32]) -> Self {
                let device = self.gamma.val().device();
                self.gamma = Param::from_data(TensorData::from(gamma), &device);
                self.beta = Param::from_data(TensorData::from(beta), &device);
                self
            }
            fn running(&self) -> [Vec<f32>; 2] {
                [&self.running_mean, &self.running_var].map(|state| values(state.value_sync()))
            }
            fn affine(&self) -> [Tensor<1>; 2] {
                [self.gamma.val(), self.beta.val()]
            }
        }
    };
}
norm!(BatchNorm);
norm!(SyncBatchNorm);
norm!(syncbn_burn::BatchNorm);

pub fn burns(device: &Device) -> BatchNorm {
    BatchNormConfig::new(CHANNELS).init(&device.clone().autodiff())
}

pub fn ours(device: &Device) -> SyncBatchNorm {
    SyncBatchNormConfig::new(CHANNELS).init(&device.clone().autodiff())
}

pub fn alone(device: &Device) -> syncbn_burn::BatchNorm {
    AloneConfig::new(CHANNELS).init(&device.clone().autodiff())
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().unwrap()
}

/// A number from `low` to `high`, in steps of 2⁻²⁴ of what lies between.
fn uniform(random: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * (random.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// The batch of one rank, (N, C, L), with a gradient for y.
#[derive(Clone, Debug)]
pub struct Batch {
    pub dims: [usize; 3],
    pub x: Vec<f32>,
    pub g: Vec<f32>,
}

/// Batches of all ranks and the parameters of the layer.
#[derive(Clone, Debug)]
pub struct Problem {
    pub ranks: Vec<Batch>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

impl Problem {
    /// Channels of different mean and deviation, ranks of different mean.
    pub fn random(batches: &[usize], positions: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut ranks = Vec::new();
        for (rank, &batch) in batches.iter().enumerate() {
            let count = batch * CHANNELS * positions;
            let value = |index: usize, random: &mut ChaCha8Rng| {
                let channel = (index / positions % CHANNELS) as f32;
                uniform(random, -1.0, 1.0) * (channel + 1.0) + 2.0 * channel - rank as f32
            };
            let x = (0..count).map(|index| value(index, &mut random)).collect();
            let g = (0..count).map(|_| uniform(&mut random, -1.0, 1.0)).collect();
            ranks.push(Batch { dims: [batch, CHANNELS, positions], x, g });
        }
        let mut vector = |low: f32| (0..CHANNELS).map(|_| uniform(&mut random, low, 1.5)).collect();
        Self { ranks, gamma: vector(0.5), beta: vector(-1.5) }
    }

    /// The definition in f64: what every rank must see after one step from the initial running
    /// statistics.
    pub fn expected(&self) -> Vec<Seen<f64>> {
        let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
        let ranks: Vec<_> =
            self.ranks.iter().map(|batch| (&batch.dims, wide(&batch.x), wide(&batch.g))).collect();
        let x: Vec<_> =
            ranks.iter().map(|(dims, x, _)| RankBatch { dims: *dims, values: x }).collect();
        let g: Vec<_> =
            ranks.iter().map(|(dims, _, g)| RankBatch { dims: *dims, values: g }).collect();
        let gamma = wide(&self.gamma);
        let beta = wide(&self.beta);
        let forward =
            forward_train(&x, Affine { weight: Some(&gamma), bias: Some(&beta) }, EPSILON).unwrap();
        let backward = backward_train(&x, &g, Some(&gamma), EPSILON).unwrap();
        let mean: Vec<f64> = forward.statistics.mean.iter().map(|mean| 0.1 * mean).collect();
        let var: Vec<f64> =
            forward.statistics.var_biased.iter().map(|var| 0.9 + 0.1 * var).collect();
        let rank = |rank: usize| Seen {
            y: forward.outputs[rank].clone(),
            grad_x: backward.grad_inputs[rank].clone(),
            grad_gamma: backward.grad_weights[rank].clone(),
            grad_beta: backward.grad_biases[rank].clone(),
            running: [mean.clone(), var.clone()],
        };
        (0..self.ranks.len()).map(rank).collect()
    }

    /// All ranks' batches in one.
    pub fn whole(&self) -> Self {
        let dims = self.ranks[0].dims;
        let joined =
            |of: fn(&Batch) -> &Vec<f32>| self.ranks.iter().flat_map(of).copied().collect();
        let batch = self.ranks.iter().map(|batch| batch.dims[0]).sum();
        let ranks = vec![Batch {
            dims: [batch, dims[1], dims[2]],
            x: joined(|b| &b.x),
            g: joined(|b| &b.g),
        }];
        Self { ranks, ..self.clone() }
    }
}

/// What one step of one rank shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<T> {
    pub y: Vec<T>,
    pub grad_x: Vec<T>,
    pub grad_gamma: Vec<T>,
    pub grad_beta: Vec<T>,
    pub running: [Vec<T>; 2],
}

/// One step: forward, backward, running statistics.
pub fn step<N: Norm>(norm: &N, batch: &Batch, device: &Device) -> Seen<f32> {
    let device = device.clone().autodiff();
    let x = Tensor::<3>::from_data(TensorData::new(batch.x.clone(), batch.dims), &device)
        .require_grad();
    let g = Tensor::<3>::from_data(TensorData::new(batch.g.clone(), batch.dims), &device);
    let y = norm.apply(x.clone());
    let gradients = (y.clone() * g).sum().backward();
    let [gamma, beta] = norm.affine().map(|parameter| values(parameter.grad(&gradients).unwrap()));
    let grad_x = values(x.grad(&gradients).unwrap());
    Seen { y: values(y), grad_x, grad_gamma: gamma, grad_beta: beta, running: norm.running() }
}

/// How far what is computed may be from what is expected, in units of 2⁻²⁴ (half an ulp of 1) of
/// the largest expected value of the list.
///
/// The definition: y is held to 8 ulp of its channel's largest value elsewhere; the same 16 units
/// serve here for gradients, which have one product and one difference more on the way but are
/// compared with the largest of all channels.
pub const DEFINITION: f64 = 16.0;

impl Seen<f32> {
    pub fn assert_close(&self, expected: &Seen<f64>, units: f64, what: &str) {
        let pairs = [
            ("y", &self.y, &expected.y),
            ("grad_x", &self.grad_x, &expected.grad_x),
            ("grad_gamma", &self.grad_gamma, &expected.grad_gamma),
            ("grad_beta", &self.grad_beta, &expected.grad_beta),
            ("running_mean", &self.running[0], &expected.running[0]),
            ("running_var", &self.running[1], &expected.running[1]),
        ];
        for (name, found, expected) in pairs {
            let worst = difference(found, expected);
            println!("{what}, {name}: {worst:.2} units");
            assert!(worst <= units, "{what}, {name}: {worst:.1} units, allowed {units}");
        }
    }

    pub fn widen(&self) -> Seen<f64> {
        let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect();
        Seen {
            y: wide(&self.y),
            grad_x: wide(&self.grad_x),
            grad_gamma: wide(&self.grad_gamma),
            grad_beta: wide(&self.grad_beta),
            running: [wide(&self.running[0]), wide(&self.running[1])],
        }
    }
}

/// The largest difference, in units of 2⁻²⁴ of the largest expected value; infinite where one is
/// not finite or is missing.
pub fn difference(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() || found.iter().any(|value| !value.is_finite()) {
        return f64::INFINITY;
    }
    let scale = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let worst =
        found.iter().zip(expected).map(|(&found, &expected)| (f64::from(found) - expected).abs());
    let worst = worst.fold(0.0, f64::max);
    if worst == 0.0 { 0.0 } else { worst / scale * (1u64 << 24) as f64 }
}

#[test]
fn a_difference_of_twice_the_tolerance_is_found() {
    let expected = [2.0, -1.0];
    let off = 2.0 * DEFINITION * 2.0 / (1u64 << 24) as f64;
    assert!(difference(&[(2.0 - off) as f32, -1.0], &expected) > DEFINITION);
    assert_eq!(difference(&[2.0, f32::NAN], &expected), f64::INFINITY);
    assert_eq!(difference(&[2.0], &expected), f64::INFINITY);
}
