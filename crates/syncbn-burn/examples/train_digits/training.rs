//! One training run: a thread per rank, each with a replica of its own, gradients averaged after
//! every step in the group in which the layers synchronize.

use std::thread;
use std::time::Duration;

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::optim::{GradientsParams, SgdConfig};
use burn::store::ModuleRecord;
use burn::tensor::Device;
use burn::tensor::wgpu::WgpuSetup;
use syncbn::ProcessGroup;
use syncbn::collective::LocalGroup;
use syncbn_burn::{Rank, SyncBatchNorm, average_gradients};

use super::Failure;
use super::data::{CLASSES, Digits, schedule};
use super::model::{Network, Norm};

/// Samples of a step, over all ranks.
pub const BATCH: usize = 8;
/// Ranks of a data-parallel run; each gets two samples of a step.
pub const RANKS: usize = 4;
const LEARNING_RATE: f64 = 0.05;
/// How long a rank waits for the others, of which one tests the network after every epoch.
const DEADLINE: Duration = Duration::from_secs(60);

/// How the batch is normalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Four ranks, each with the statistics of its two samples: Burn's `BatchNorm`.
    Local,
    /// Four ranks with the statistics of all eight: `SyncBatchNorm`.
    Synchronized,
    /// One device with the whole batch: Burn's `BatchNorm`.
    Whole,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::Local, Self::Synchronized, Self::Whole];
}

/// How long and from what a run trains.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub epochs: usize,
    /// Training samples, from the first.
    pub samples: usize,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Mean loss of the whole batch, step by step.
    pub losses: Vec<f32>,
    /// Share of test digits recognized, epoch by epoch. Of replicas with running statistics of
    /// their own it is the first.
    pub accuracy: Vec<f64>,
}

/// A Burn device with its wgpu handles.
pub type Opened = (Device, WgpuSetup);

/// Trains from the weights that the seed gives; `watch` sees the history of the first rank grow.
pub fn train(
    way: Way,
    plan: Plan,
    devices: &[Opened],
    digits: &[Digits; 2],
    watch: &(dyn Fn(&History) + Sync),
) -> Result<History, Failure> {
    match way {
        Way::Local => run::<BatchNorm>(plan, &devices[..RANKS], digits, watch),
        Way::Whole => run::<BatchNorm>(plan, &devices[..1], digits, watch),
        Way::Synchronized => run::<SyncBatchNorm>(plan, &devices[..RANKS], digits, watch),
    }
}

fn run<N: Norm>(
    plan: Plan,
    devices: &[Opened],
    digits: &[Digits; 2],
    watch: &(dyn Fn(&History) + Sync),
) -> Result<History, Failure> {
    // Weights without a graph, as numbers: every replica loads them into leaves of its own.
    let first = &devices[0].0;
    first.seed(plan.seed);
    let weights = Network::<BatchNorm>::new(first).into_record();
    let groups = LocalGroup::ranks(devices.len())
        .into_iter()
        .map(|rank| ProcessGroup::new(rank).with_deadline(DEADLINE));
    let ranks = devices
        .iter()
        .zip(groups)
        .map(|((device, setup), group)| Rank::of_device(device, setup, group));
    let ranks = ranks.collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let replicas = ranks.into_iter().map(|rank| {
            let weights = weights.clone();
            // A rank lives on its thread, so that the others learn at once when it ends.
            scope.spawn(move || {
                let silent = |_: &History| {};
                let is_first = rank.group().rank() == 0;
                let watch: &dyn Fn(&History) =
                    if is_first { &|history| watch(history) } else { &silent };
                replica::<N>(plan, &rank, weights, digits, watch)
            })
        });
        let replicas: Vec<_> = replicas.collect();
        let histories =
            replicas.into_iter().map(|replica| replica.join().map_err(|_| "a rank panicked")?);
        histories
            .collect::<Result<Vec<_>, Failure>>()?
            .into_iter()
            .next()
            .ok_or_else(|| "no rank".into())
    })
}

fn replica<N: Norm>(
    plan: Plan,
    rank: &Rank,
    weights: ModuleRecord,
    [training, test]: &[Digits; 2],
    watch: &dyn Fn(&History),
) -> Result<History, Failure> {
    let device = rank.device().autodiff();
    let group = rank.group();
    let mut network = Network::<N>::new(&device).load_record(weights);
    let mut optimizer = SgdConfig::new().init();
    let mut history = History::default();
    let share = BATCH / group.world_size();
    let samples = plan.samples.min(training.len());
    for epoch in schedule(samples, BATCH, plan.epochs, plan.seed) {
        for batch in epoch {
            let own = &batch[group.rank() * share..][..share];
            let (pixels, labels) = training.batch(own, &device);
            let loss = network.sum_of_losses(pixels, labels).div_scalar(share as f64);
            let mut gradients = loss.backward();
            let loss = average_gradients(&network, &mut gradients, loss, group)?;
            let gradients = GradientsParams::from_grads(gradients, &network);
            network = optimizer.step(LEARNING_RATE, network, gradients);
            history.losses.push(loss.into_scalar::<f32>());
            watch(&history);
        }
        if group.rank() == 0 {
            history.accuracy.push(accuracy(&network, test, &device)?);
            watch(&history);
        }
    }
    Ok(history)
}

/// The share of digits that a network recognizes, with its running statistics.
fn accuracy<N: Norm>(
    network: &Network<N>,
    digits: &Digits,
    device: &Device,
) -> Result<f64, Failure> {
    let all: Vec<usize> = (0..digits.len()).collect();
    let (pixels, _) = digits.batch(&all, &device.clone().without_autodiff());
    let scores = network.valid().forward(pixels).into_data().try_to_vec::<f32>()?;
    let best = |scores: &[f32]| (0..CLASSES).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let right = scores
        .chunks(CLASSES)
        .zip(&digits.labels)
        .filter(|(scores, label)| best(scores) == Some(**label));
    Ok(right.count() as f64 / digits.len() as f64)
}
