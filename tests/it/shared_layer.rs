//! One layer in an `Arc`, evaluated by several threads while another one trains on it.
//!
//! `shared_layer/settings.rs` holds what may be set on a living layer, `shared_layer/tensors.rs`
//! the ways to a tensor's memory, `shared_layer/application.rs` those by an application's own
//! kernel and device.

mod application;
mod settings;
mod tensors;

use crate::common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    BatchNorm, BatchNormConfig, Device, Error, SyncBatchNorm, Tensor, error::ArgumentError,
};

const CHANNELS: usize = 37;
const STEPS: usize = 25;
const EVALUATORS: usize = 8;

type Bits = Vec<Vec<u32>>;

/// What both kinds of layer do here.
trait Layer: Send + Sync + 'static {
    fn train(&self, x: &[Tensor]) -> Bits;
    fn evaluate(&self, x: &[Tensor]) -> Bits;
    fn running(&self) -> RunningStats;
}

impl Layer for SyncBatchNorm {
    fn train(&self, x: &[Tensor]) -> Bits {
        bits(&read(&block_on(self.forward_train(x)).unwrap().output))
    }

    fn evaluate(&self, x: &[Tensor]) -> Bits {
        bits(&read(&block_on(self.forward_eval(x)).unwrap().output))
    }

    fn running(&self) -> RunningStats {
        self.running_stats().unwrap()
    }
}

impl Layer for BatchNorm {
    fn train(&self, x: &[Tensor]) -> Bits {
        bits(&read(&self.forward_train(x).unwrap().output))
    }

    fn evaluate(&self, x: &[Tensor]) -> Bits {
        bits(&read(&self.forward_eval(x).unwrap().output))
    }

    fn running(&self) -> RunningStats {
        block_on(self.running_stats()).unwrap().unwrap()
    }
}

/// x of every step and of evaluation: two ranks, on their devices.
struct Inputs {
    training: Vec<Vec<Tensor>>,
    evaluation: Vec<Tensor>,
}

impl Inputs {
    fn new(devices: &[Device]) -> Self {
        let mut random = Random::new(300);
        let mut of_ranks = || -> Vec<Tensor> {
            let dims = [[3, CHANNELS, 20], [2, CHANNELS, 33]];
            devices
                .iter()
                .zip(dims)
                .map(|(device, dims)| Batch::random(&dims, &mut random).upload(device))
                .collect()
        };
        Self { training: (0..STEPS).map(|_| of_ranks()).collect(), evaluation: of_ranks() }
    }
}

/// Numbers of steps, and of evaluations that have ended.
#[derive(Default)]
struct Progress {
    begun: AtomicUsize,
    ended: AtomicUsize,
    evaluations: AtomicUsize,
}

/// What evaluation gives after each number of steps, from none on, of a layer that nobody shares.
fn snapshots(layer: &impl Layer, inputs: &Inputs) -> Vec<Bits> {
    let mut snapshots = vec![layer.evaluate(&inputs.evaluation)];
    for x in &inputs.training {
        layer.train(x);
        snapshots.push(layer.evaluate(&inputs.evaluation));
    }
    for (step, snapshot) in snapshots.iter().enumerate() {
        assert_eq!(
            snapshots.iter().position(|other| other == snapshot),
            Some(step),
            "two snapshots are alike"
        );
    }
    snapshots
}

/// Evaluates until the last step has ended, and once after it; the snapshots that were seen.
fn evaluate(
    layer: &impl Layer,
    inputs: &Inputs,
    snapshots: &[Bits],
    progress: &Progress,
) -> Vec<usize> {
    let mut seen = Vec::new();
    loop {
        let earliest = progress.ended.load(Ordering::SeqCst);
        let y = layer.evaluate(&inputs.evaluation);
        let latest = progress.begun.load(Ordering::SeqCst);
        progress.evaluations.fetch_add(1, Ordering::SeqCst);
        let step = snapshots
            .iter()
            .position(|snapshot| *snapshot == y)
            .expect("an evaluation after a whole step");
        assert!(
            (earliest..=latest).contains(&step),
            "of step {step} between the steps {earliest} and {latest}"
        );
        seen.push(step);
        if earliest == STEPS {
            return seen;
        }
    }
}

/// Trains, and lets so many evaluations pass after every step that one of them begins and ends
/// between two steps.
fn train(layer: &impl Layer, inputs: &Inputs, progress: &Progress) -> Vec<Bits> {
    let step = |(number, x): (usize, &Vec<Tensor>)| {
        progress.begun.store(number + 1, Ordering::SeqCst);
        let y = layer.train(x);
        progress.ended.store(number + 1, Ordering::SeqCst);
        let until = progress.evaluations.load(Ordering::SeqCst) + EVALUATORS + 1;
        while number + 1 < STEPS && progress.evaluations.load(Ordering::SeqCst) < until {
            std::thread::yield_now();
        }
        y
    };
    inputs.training.iter().enumerate().map(step).collect()
}

fn check<L: Layer>(make: impl Fn() -> L, devices: &[Device]) {
    let inputs = Arc::new(Inputs::new(devices));
    let expected = Arc::new(snapshots(&make(), &inputs));
    let alone = make();
    let outputs: Vec<Bits> = inputs.training.iter().map(|x| alone.train(x)).collect();

    let layer = Arc::new(make());
    let progress = Arc::new(Progress::default());
    let evaluators: Vec<_> = (0..EVALUATORS)
        .map(|_| {
            let layer = layer.clone();
            let inputs = inputs.clone();
            let expected = expected.clone();
            let progress = progress.clone();
            std::thread::spawn(move || evaluate(&*layer, &inputs, &expected, &progress))
        })
        .collect();
    let trainer = {
        let layer = layer.clone();
        let inputs = inputs.clone();
        std::thread::spawn(move || train(&*layer, &inputs, &progress))
    };
    let mut counts = vec![0; STEPS + 1];
    for evaluator in evaluators {
        let seen = evaluator.join().expect("evaluations of whole steps");
        assert!(seen.is_sorted(), "a thread saw an earlier step after a later one: {seen:?}");
        seen.into_iter().for_each(|step| counts[step] += 1);
    }
    assert!(
        trainer.join().expect("a trainer") == outputs,
        "training gave other bits while others evaluated"
    );
    assert_eq!(layer.running(), alone.running());
    println!("evaluations after each number of steps: {counts:?}");
    assert!(counts[1..].iter().all(|&count| count > 0), "steps that no evaluation saw: {counts:?}");
}

#[test]
fn threads_evaluate_whole_steps_while_another_trains() {
    for kind in Kind::ALL {
        let devices = kind.devices(2);
        let make =
            || SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), devices.clone()).unwrap();
        check(make, &devices);
    }
}

#[test]
fn threads_evaluate_whole_steps_while_another_trains_on_one_gpu() {
    let device = virtual_gpus()[0].clone();
    let make = || BatchNorm::new(BatchNormConfig::torch(CHANNELS), &device).unwrap();
    check(make, &[device.clone(), device.clone()]);
}

/// Whether backward was refused since an argument is not what forward has seen.
fn assert_not_saved<T>(found: Result<T, Error>, expected_argument: &str, expected_reason: &str) {
    match found.map(drop) {
        Err(Error::Argument(ArgumentError::NotSaved { argument, reason })) => {
            assert_eq!((argument.as_str(), reason), (expected_argument, expected_reason));
        }
        other => panic!("expected {expected_argument} to be refused, found {other:?}"),
    }
}
