//! Alone on a device: what a step costs, counted in what wgpu is asked for.
//!
//! wgpu logs every call. Whatever this process maps or submits passes there, by Burn or by the
//! layer, on whichever thread. Tests that use devices hold the lock of all of them, so that what is
//! counted is of one test.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor, TensorData};
use log::{LevelFilter, Log, Metadata, Record};

use crate::common::{
    CHANNELS, DEADLINE, DEFINITION, Norm, Problem, alone, burns, devices, on_threads, ours, ranks,
    step, values,
};

static READ: AtomicUsize = AtomicUsize::new(0);
static SUBMITTED: AtomicUsize = AtomicUsize::new(0);
static DISPATCHED: AtomicUsize = AtomicUsize::new(0);

/// What a call asks wgpu for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Buffers mapped.
    pub read: usize,
    pub submitted: usize,
    /// Kernels launched.
    pub dispatched: usize,
}

struct Counter;

impl Log for Counter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wgpu_core")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = record.args().to_string();
        if line.starts_with("Buffer::map_async") {
            READ.fetch_add(1, Ordering::SeqCst);
        } else if line == "Queue::submit" {
            SUBMITTED.fetch_add(1, Ordering::SeqCst);
        } else if line.starts_with("ComputePass::dispatch") {
            DISPATCHED.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flush(&self) {}
}

/// The cost of a call and all that it submits.
pub fn counted(device: &Device, call: impl FnOnce()) -> Cost {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Counter).expect("no other logger");
        log::set_max_level(LevelFilter::Trace);
    });
    device.sync().unwrap();
    let counts = || [&READ, &SUBMITTED, &DISPATCHED].map(|count| count.load(Ordering::SeqCst));
    let before = counts();
    call();
    let after = counts();
    let [read, submitted, dispatched] = [0, 1, 2].map(|index| after[index] - before[index]);
    Cost { read, submitted, dispatched }
}

/// The costs of forward, backward and evaluation.
fn passes<N: Norm>(norm: &N, device: &Device) -> [Cost; 3] {
    let device = device.clone().autodiff();
    let problem = Problem::random(&[4], 6, 80);
    let batch = &problem.ranks[0];
    let tensor = |values: &[f32]| {
        Tensor::<3>::from_data(TensorData::new(values.to_vec(), batch.dims), &device)
    };
    let mut costs = Vec::new();
    // The first steps compile.
    for _ in 0..3 {
        let x = tensor(&batch.x).require_grad();
        let g = tensor(&batch.g);
        let mut y = None;
        let forward = counted(&device, || y = Some(norm.apply(x.clone())));
        let loss = (y.unwrap() * g).sum();
        let mut gradients = None;
        let backward = counted(&device, || gradients = Some(loss.backward()));
        let eval = norm.valid();
        // Large enough not to be left to Burn's fusion.
        let x = Tensor::<3>::ones([8, CHANNELS, 6000], &device.clone().without_autodiff());
        let evaluation = counted(&device, || drop(eval.apply(x)));
        assert!(gradients.is_some());
        costs = vec![forward, backward, evaluation];
    }
    costs.try_into().unwrap()
}

#[test]
fn a_step_of_one_rank_reads_nothing_back() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    for (what, costs) in [
        ("alone", passes(&alone(&device), &device)),
        ("a group of one", passes(&ours(&device), &device)),
    ] {
        println!("{what}: forward, backward, evaluation: {costs:?}");
        assert_eq!(costs.map(|cost| cost.read), [0; 3], "{what}");
        let [forward, backward, evaluation] = costs.map(|cost| cost.submitted);
        assert_eq!([forward, evaluation], [1, 1], "{what}");
        // What Burn has queued before, the gradient of the sum, goes first.
        assert!(backward <= 2, "{what}: {backward}");
    }
    // The counters see what Burn reads and launches.
    let x = Tensor::<1>::zeros([4], &device);
    let cost = counted(&device, || assert_eq!(values(x + 1.0), [1.0; 4]));
    assert_eq!((cost.read, cost.dispatched), (1, 1));
}

#[test]
fn a_module_alone_has_no_part_in_the_group_of_its_rank() {
    let devices = devices();
    let problem = Problem::random(&[3, 2], 5, 82);
    // One of the two ranks does nothing at all, and nobody waits for it.
    let found = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let norm = alone(&rank.device()).set(&problem.gamma, &problem.beta);
        (index == 0).then(|| step(&norm, &problem.ranks[0], &rank.device()))
    });
    let expected = Problem { ranks: vec![problem.ranks[0].clone()], ..problem.clone() }.expected();
    found[0].as_ref().unwrap().assert_close(&expected[0], DEFINITION, "alone");
}

#[test]
fn momentum_and_epsilon_may_change_on_a_living_module() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    let mut own = alone(&device);
    let mut theirs = burns(&device);
    for (seed, momentum, epsilon) in [(90, 0.5, 1e-3), (91, 1.0, 1e-5), (92, 0.0, 1e-5)] {
        (own.momentum, own.epsilon) = (momentum, epsilon);
        (theirs.momentum, theirs.epsilon) = (momentum, epsilon);
        let batch = &Problem::random(&[4], 3, seed).ranks[0];
        let found = step(&own, batch, &device);
        let expected = step(&theirs, batch, &device);
        found.assert_close(&expected.widen(), 28.0, "after the change");
    }
}
