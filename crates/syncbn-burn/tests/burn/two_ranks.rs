//! Two virtual devices on one adapter, each on a thread of its own: together they compute the whole
//! batch.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::tensor::{Device, Tensor, TensorData};
use syncbn_burn::{Rank, SyncBatchNorm};

use crate::common::{
    Batch, CHANNELS, DEADLINE, DEFINITION, Norm, Problem, Seen, burns, devices, difference,
    on_threads, ours, ranks, step, values,
};

/// A step of every rank on its thread, each with a module of its own.
fn concurrently(ranks: Vec<Rank>, problem: &Problem) -> Vec<Seen<f32>> {
    on_threads(ranks, |index, rank| {
        let norm = ours(&rank.device()).set(&problem.gamma, &problem.beta);
        step(&norm, &problem.ranks[index], &rank.device())
    })
}

#[test]
fn two_ranks_compute_the_whole_batch() {
    let devices = devices();
    for (batches, positions, seed) in
        [([2, 2], 9, 1), ([5, 1], 4, 2), ([1, 3], 1, 3), ([3, 4], 256, 4)]
    {
        let problem = Problem::random(&batches, positions, seed);
        let found = concurrently(ranks(&devices[..], DEADLINE), &problem);
        for (rank, (found, expected)) in found.iter().zip(&problem.expected()).enumerate() {
            found.assert_close(expected, DEFINITION, &format!("{batches:?}, rank {rank}"));
        }
        assert_eq!(
            found[0].running, found[1].running,
            "running statistics are the same bits on every rank"
        );
        // Burn's layer on one device with the whole batch; its gradients of the parameters are the
        // sums of the ranks'.
        let (device, _) = &devices[0];
        let whole = step(
            &burns(device).set(&problem.gamma, &problem.beta),
            &problem.whole().ranks[0],
            device,
        );
        let sum = |of: fn(&Seen<f32>) -> &Vec<f32>| {
            of(&found[0]).iter().zip(of(&found[1])).map(|(a, b)| a + b).collect()
        };
        let joined =
            |of: fn(&Seen<f32>) -> &Vec<f32>| [&of(&found[0])[..], &of(&found[1])[..]].concat();
        let found = Seen {
            y: joined(|seen| &seen.y),
            grad_x: joined(|seen| &seen.grad_x),
            grad_gamma: sum(|seen| &seen.grad_gamma),
            grad_beta: sum(|seen| &seen.grad_beta),
            running: found[0].running.clone(),
        };
        // As between Burn and one rank, with one rounding more in the sum of the ranks' gradients.
        let units = DEFINITION + ((batches[0] + batches[1]) * positions) as f64 + 1.0;
        found.assert_close(&whole.widen(), units, &format!("{batches:?}, Burn on one device"));
    }
}

#[test]
fn each_rank_alone_computes_something_else() {
    // What the comparison above would see if nothing were exchanged.
    let devices = devices();
    let problem = Problem::random(&[2, 2], 9, 1);
    let (device, _) = &devices[0];
    let alone = step(&burns(device).set(&problem.gamma, &problem.beta), &problem.ranks[0], device);
    let expected = &problem.expected()[0];
    assert!(difference(&alone.y, &expected.y) > 1000.0 * DEFINITION);
    assert!(difference(&alone.grad_x, &expected.grad_x) > 1000.0 * DEFINITION);
}

#[test]
fn an_empty_rank_takes_part() {
    let devices = devices();
    let mut problem = Problem::random(&[3, 1], 5, 5);
    problem.ranks[1].dims[0] = 0;
    problem.ranks[1].x.clear();
    problem.ranks[1].g.clear();
    let expected = problem.expected();
    let found = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let device = rank.device().autodiff();
        let norm = ours(&device).set(&problem.gamma, &problem.beta);
        if index == 0 {
            return (step(&norm, &problem.ranks[0], &device).y, norm.running());
        }
        let x = Tensor::<3>::empty([0, CHANNELS, 5], &device).require_grad();
        let y = norm.forward(x.clone());
        assert_eq!(y.dims(), [0, CHANNELS, 5]);
        let gradients = y.sum().backward();
        assert_eq!(values(norm.gamma.val().grad(&gradients).unwrap()), [0.0; CHANNELS]);
        assert_eq!(x.grad(&gradients).unwrap().dims(), [0, CHANNELS, 5]);
        (Vec::new(), norm.running())
    });
    assert!(difference(&found[0].0, &expected[0].y) <= DEFINITION);
    assert_eq!(found[0].1, found[1].1);
}

#[test]
fn replicas_that_load_one_record_or_fork_train_alike() {
    let devices = devices();
    let problem = Problem::random(&[2, 3], 4, 6);
    let made = ours(&devices[0].0).set(&problem.gamma, &problem.beta);
    let record = made.clone().into_record();
    let loaded = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let norm = ours(&rank.device()).load_record(record.clone());
        step(&norm, &problem.ranks[index], &rank.device())
    });
    // A module that belongs to no rank yet: its clones find theirs by the device of their input.
    // Their parameters are leaves of their own; Burn shares the running statistics of forks.
    let forked = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let norm = made.clone().fork(&rank.device().autodiff());
        let mut seen = step(&norm, &problem.ranks[index], &rank.device());
        seen.running = loaded[index].running.clone();
        seen
    });
    assert_eq!(loaded, forked);
}

/// Two normalizations, of which the first is used twice in a step.
#[derive(Module, Debug)]
struct Two<N: Norm> {
    first: N,
    second: N,
}

impl<N: Norm> Two<N> {
    /// The gradient of the input.
    fn gradient(&self, batch: &Batch, device: &Device) -> Vec<f32> {
        let device = device.clone().autodiff();
        let x = Tensor::<3>::from_data(TensorData::new(batch.x.clone(), batch.dims), &device)
            .require_grad();
        let g = Tensor::<3>::from_data(TensorData::new(batch.g.clone(), batch.dims), &device);
        let inner = self.first.apply(x.clone()).tanh();
        let y = self.first.apply(self.second.apply(inner) + x.clone());
        let gradients = (y * g).sum().backward();
        values(x.grad(&gradients).unwrap())
    }
}

#[test]
fn layers_used_several_times_and_for_several_steps_stay_in_step() {
    const STEPS: u64 = 3;
    let devices = devices();
    let problems: Vec<Problem> =
        (0..STEPS).map(|step| Problem::random(&[2, 2], 6, 70 + step)).collect();
    let found = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        let two =
            Two::<SyncBatchNorm> { first: ours(&rank.device()), second: ours(&rank.device()) };
        let gradient = |problem: &Problem| two.gradient(&problem.ranks[index], &rank.device());
        (problems.iter().map(gradient).collect::<Vec<_>>(), two.first.running())
    });
    let (device, _) = &devices[0];
    let two = Two::<BatchNorm> { first: burns(device), second: burns(device) };
    for (step, problem) in problems.iter().enumerate() {
        let expected = two.gradient(&problem.whole().ranks[0], device);
        let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
        let found = [&found[0].0[step][..], &found[1].0[step][..]].concat();
        // Between Burn and two ranks, one normalization differs by this much; here are three,
        // forward and backward.
        let units = 6.0 * (DEFINITION + 24.0);
        let worst = difference(&found, &expected);
        println!("step {step}: {worst:.1} units");
        assert!(worst <= units, "step {step}: {worst:.1} units, allowed {units}");
    }
    assert_eq!(found[0].1, found[1].1);
    let expected: Vec<f64> = two.first.running()[1].iter().copied().map(f64::from).collect();
    assert!(difference(&found[0].1[1], &expected) <= 6.0 * (DEFINITION + 24.0));
}
