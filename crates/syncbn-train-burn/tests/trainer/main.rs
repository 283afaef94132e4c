//! The digits under Burn's trainer, over one, two and three devices: the workers are its threads,
//! which fork the model for every step. Losses are those of the whole batch, whatever it is cut
//! into, and an uneven last batch ends at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../syncbn-burn/examples/train_digits/data.rs"]
#[allow(dead_code, reason = "the part that trains is used here")]
mod data;
mod loader;
#[path = "../../../syncbn-burn/examples/train_digits/model.rs"]
mod model;

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::{LearningRate, SgdConfig};
use burn::tensor::{Device, ExecutionError};
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::ItemLazy;
use burn::train::{
    ExecutionStrategy, InferenceStep, Learner, MultiDeviceOptim, SupervisedTraining, TrainOutput,
    TrainStep,
};
use pollster::block_on;
use syncbn::ProcessGroup;
use syncbn::collective::LocalGroup;
use syncbn_burn::{EvenLoader, Rank, SyncBatchNorm};

use data::Digits;
use loader::{Batch, Losses, Schedule};
use model::Network;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Samples of a step over all workers, and of the last step.
const BATCH: usize = 12;
const LAST: usize = 2;
const STEPS: usize = 8;
const RATE: LearningRate = 0.05;
const DEADLINE: Duration = Duration::from_secs(120);

/// The step has noted its loss.
struct Noted;

impl ItemLazy for Noted {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl TrainStep for Network<SyncBatchNorm> {
    type Input = Batch;
    type Output = Noted;

    fn step(&self, batch: Batch) -> TrainOutput<Noted> {
        // Of all workers: the trainer adds up what they give.
        let loss = self.sum_of_losses(batch.pixels, batch.labels).div_scalar(batch.samples as f64);
        let gradients = loss.backward();
        batch.losses.note(batch.step, loss.into_scalar::<f32>());
        TrainOutput::new(self, gradients, Noted)
    }
}

impl InferenceStep for Network<SyncBatchNorm> {
    type Input = Batch;
    type Output = Noted;

    fn step(&self, batch: Batch) -> Noted {
        let loss = self.sum_of_losses(batch.pixels, batch.labels).div_scalar(batch.samples as f64);
        batch.losses.note(batch.step, loss.into_scalar::<f32>());
        Noted
    }
}

/// Losses of every step over so many devices, and of an evaluation at the end.
fn train(workers: usize, digits: &Digits) -> [Vec<f32>; 2] {
    let adapters = block_on(syncbn::Device::adapters());
    let adapter = adapters.last().expect("an adapter");
    let groups = LocalGroup::ranks(workers).into_iter();
    let ranks: Vec<Rank> = groups
        .map(|group| ProcessGroup::new(group).with_deadline(DEADLINE))
        .map(|group| Rank::open(adapter, group).unwrap())
        .collect();
    let devices: Vec<Device> = ranks.iter().map(|rank| rank.device().autodiff()).collect();
    devices[0].seed(3);
    let network = Network::<SyncBatchNorm>::new(&devices[0]);
    let (losses, evaluated) = (Losses::default(), Losses::default());
    let schedule = |losses: &Losses, steps: &[usize]| {
        let batches = steps.iter().scan(0, |start, &samples| {
            *start += samples;
            Some((*start - samples..*start).collect())
        });
        Schedule::new(digits.clone(), batches.collect(), losses.clone(), devices[0].clone())
    };
    let mut steps = vec![BATCH; STEPS - 1];
    steps.push(LAST);
    let training = schedule(&losses, &steps);
    let empty = training.empty();
    let training = EvenLoader::new(Arc::new(training), empty);
    let strategy = match workers {
        1 => ExecutionStrategy::SingleDevice(devices[0].clone()),
        _ => ExecutionStrategy::MultiDevice(devices.clone(), MultiDeviceOptim::OptimMainDevice),
    };
    let folder = std::env::temp_dir().join(format!("syncbn-trainer-{workers}"));
    let learner = Learner::new(network, SgdConfig::new().init(), ConstantLr::new(RATE));
    SupervisedTraining::new(&folder, Arc::new(training), Arc::new(schedule(&evaluated, &[100])))
        .num_epochs(1)
        .with_training_strategy(strategy.into())
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_application_logger(None)
        .launch(learner);
    let _ = std::fs::remove_dir_all(folder);
    [losses.all(), evaluated.all()]
}

#[test]
fn one_two_and_three_workers_train_alike_and_an_uneven_end_is_not_late() {
    let [digits, _] = Digits::load().unwrap();
    let [whole, evaluated] = train(1, &digits);
    assert_eq!((whole.len(), evaluated.len()), (STEPS, 1));
    for workers in [2, 3] {
        let started = Instant::now();
        // Of two samples in the last step, the third worker has none.
        let [found, end] = train(workers, &digits);
        assert!(started.elapsed() < DEADLINE, "somebody waited for the deadline");
        println!("{workers} workers: {found:?}, {end:?}\none: {whole:?}, {evaluated:?}");
        for (found, expected) in found.iter().chain(&end).zip(whole.iter().chain(&evaluated)) {
            // Rounding alone tells them apart, and grows with the steps.
            assert!((found - expected).abs() <= 1e-3 * expected, "{found}, not {expected}");
        }
        assert_eq!(found.len(), STEPS);
    }
    // The steps differ from each other by far more.
    assert!((whole[0] - whole[STEPS - 2]).abs() > 0.05 * whole[0], "{whole:?}");
}
