//! A run of Burn's trainer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use burn::data::dataloader::DataLoader;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::ItemLazy;
use burn::train::{
    ExecutionStrategy, InferenceStep, Learner, MultiDeviceOptim, SupervisedTraining, TrainOutput,
    TrainStep,
};
use pollster::block_on;
use syncbn::ProcessGroup;
use syncbn::collective::LocalGroup;
use syncbn_burn::{EvenLoader, Rank, SyncBatchNorm, WorkerBatch};

use crate::data::Digits;
use crate::model::Network;

/// Samples of a step over all workers.
const BATCH: usize = 12;
/// Steps of two epochs, whose last has two samples.
pub const STEPS: usize = 8;
const SAMPLES: usize = BATCH * (STEPS / 2 - 1) + 2;
const EVALUATED: usize = 100;
const LEARNING_RATE: f64 = 0.05;
/// Of the group; longer than a run takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// What a worker gets for a step.
#[derive(Clone, Debug)]
pub struct Batch {
    pixels: Tensor<4>,
    labels: Tensor<2>,
    losses: Losses,
}

/// The losses of each device, in the order of its steps.
#[derive(Clone, Debug, Default)]
struct Losses(Arc<Mutex<BTreeMap<String, Vec<f32>>>>);

impl Losses {
    fn note(&self, device: &Device, loss: Tensor<1>) {
        let loss = loss.into_scalar::<f32>();
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        devices.entry(format!("{device:?}")).or_default().push(loss);
    }

    /// Of every step, the sum over devices.
    fn sums(&self) -> Vec<f32> {
        let devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = devices.values().map(Vec::len).max().unwrap_or_default();
        assert!(devices.values().all(|losses| losses.len() == steps), "a worker missed a step");
        (0..steps).map(|step| devices.values().map(|losses| losses[step]).sum()).collect()
    }
}

/// Pictures by their numbers.
struct Pictures {
    digits: Digits,
    losses: Losses,
}

impl Batcher<usize, Batch> for Pictures {
    fn batch(&self, numbers: Vec<usize>, device: &Device) -> Batch {
        let (pixels, labels) = self.digits.batch(&numbers, device);
        Batch { pixels, labels, losses: self.losses.clone() }
    }
}

/// The step has noted its loss.
pub struct Noted;

impl ItemLazy for Noted {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

/// The part of the mean loss of the samples of all workers.
fn loss(network: &Network<SyncBatchNorm>, input: &WorkerBatch<Batch>) -> Tensor<1> {
    let Batch { pixels, labels, .. } = input.batch.clone();
    input.part_of_mean(network.sum_of_losses(pixels, labels))
}

impl TrainStep for Network<SyncBatchNorm> {
    type Input = WorkerBatch<Batch>;
    type Output = Noted;

    fn step(&self, input: WorkerBatch<Batch>) -> TrainOutput<Noted> {
        let loss = loss(self, &input);
        let gradients = loss.backward();
        input.batch.losses.note(&input.batch.pixels.device(), loss);
        // The trainer adds up the gradients of the workers.
        TrainOutput::new(self, gradients, Noted)
    }
}

impl InferenceStep for Network<SyncBatchNorm> {
    type Input = WorkerBatch<Batch>;
    type Output = Noted;

    fn step(&self, input: WorkerBatch<Batch>) -> Noted {
        let loss = loss(self, &input);
        input.batch.losses.note(&input.batch.pixels.device(), loss);
        Noted
    }
}

/// Over how many devices, and where the optimizer works.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub workers: usize,
    pub optim: MultiDeviceOptim,
}

/// What a run leaves.
pub struct Seen {
    /// Mean loss of the whole batch, step by step.
    pub losses: Vec<f32>,
    /// Mean loss of an evaluation after each epoch.
    pub evaluated: Vec<f32>,
}

/// Virtual devices with their handles.
pub fn opened(count: usize) -> Vec<(Device, WgpuSetup)> {
    let adapters = block_on(syncbn::Device::adapters());
    let adapter = adapters.last().expect("an adapter: scripts/test.sh installs a software driver");
    let open = || {
        let setup = syncbn_burn::setup(adapter).unwrap();
        (Device::wgpu_options().setup(setup.clone()).init().unwrap(), setup)
    };
    (0..count).map(|_| open()).collect()
}

/// Trains from the same weights.
pub fn train(run: Run, opened: &[(Device, WgpuSetup)], digits: &[Digits; 2]) -> Seen {
    let Run { workers, optim } = run;
    let groups = LocalGroup::ranks(workers).into_iter();
    let groups = groups.map(|group| ProcessGroup::new(group).with_deadline(DEADLINE));
    let ranks = opened.iter().zip(groups);
    let ranks: Vec<Rank> = ranks
        .map(|((device, setup), group)| Rank::of_device(device, setup, group).unwrap())
        .collect();
    let devices: Vec<Device> = ranks.iter().map(|rank| rank.device().autodiff()).collect();
    devices[0].seed(3);
    let network = Network::<SyncBatchNorm>::new(&devices[0]);
    let losses = Losses::default();
    let evaluated = Losses::default();
    let loader = |digits: &Digits, samples, batch, losses: &Losses| {
        let numbers = InMemDataset::new((0..samples).collect());
        let pictures = Pictures { digits: digits.clone(), losses: losses.clone() };
        EvenLoader::new(numbers, pictures, batch, &devices[0])
    };
    let training = loader(&digits[0], SAMPLES, BATCH, &losses).with_shuffle(4);
    let testing = loader(&digits[1], EVALUATED, EVALUATED, &evaluated);
    let testing = testing.to_device(&ranks[0].device());
    let strategy = match workers {
        1 => ExecutionStrategy::SingleDevice(devices[0].clone()),
        _ => ExecutionStrategy::MultiDevice(devices.clone(), optim),
    };
    let folder = std::env::temp_dir().join(format!("syncbn-trainer-{workers}-{optim:?}"));
    let learner = Learner::new(network, SgdConfig::new().init(), ConstantLr::new(LEARNING_RATE));
    let result = SupervisedTraining::new(&folder, Arc::new(training), testing)
        .num_epochs(2)
        .with_training_strategy(strategy.into())
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_application_logger(None)
        .launch(learner);
    let _ = std::fs::remove_dir_all(folder);
    assert!(result.error.is_none(), "{:?}", result.error);
    Seen { losses: losses.sums(), evaluated: evaluated.sums() }
}
