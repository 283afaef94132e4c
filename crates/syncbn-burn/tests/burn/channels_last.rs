//! Tensors that a network keeps as (N, …, C), seen as (N, C, …) by Burn's `permute`, which moves
//! nothing: they are read and written where they lie.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use syncbn_burn::SyncBatchNorm;

use crate::common::{
    CHANNELS, DEADLINE, DEFINITION, Norm, Problem, devices, difference, ours, ranks, values,
};
use crate::on_device::{Cost, counted};

/// A batch and its gradient for y as (N, …, C).
fn channels_last(values: &[f32], samples: usize) -> Vec<f32> {
    let positions = values.len() / samples / CHANNELS;
    let at = |index: usize| {
        let sample = index / (positions * CHANNELS);
        let rest = index % (positions * CHANNELS);
        let position = rest / CHANNELS;
        let channel = rest % CHANNELS;
        values[(sample * CHANNELS + channel) * positions + position]
    };
    (0..values.len()).map(at).collect()
}

/// The axes that make (N, C, …) of (N, …, C), and those that make it back.
fn axes<const D: usize>() -> [[isize; D]; 2] {
    let mut first: [isize; D] = std::array::from_fn(|axis| axis as isize - 1);
    (first[0], first[1]) = (0, D as isize - 1);
    let mut last: [isize; D] = std::array::from_fn(|axis| axis as isize + 1);
    (last[0], last[D - 1]) = (0, 1);
    [first, last]
}

/// A step in a network that keeps channels last, against the definition. `dims` are (N, …, C).
fn step<const D: usize>(dims: [usize; D], seed: u64) {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let problem = Problem::random(&[dims[0]], dims[1..D - 1].iter().product(), seed);
    let batch = &problem.ranks[0];
    let norm = ours(&device).set(&problem.gamma, &problem.beta);
    let [x, g] = [&batch.x, &batch.g].map(|values| {
        let data = TensorData::new(channels_last(values, dims[0]), dims);
        Tensor::<D>::from_data(data, &device)
    });
    let x = x.require_grad();
    let [first, last] = axes::<D>();
    let y = norm.forward(x.clone().permute(first)).permute(last);
    let gradients = (y.clone() * g).sum().backward();
    let [gamma, beta] = norm.affine().map(|vector| values(vector.grad(&gradients).unwrap()));
    let expected = &problem.expected()[0];
    let last = |values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        channels_last(&values, dims[0]).into_iter().map(f64::from).collect::<Vec<_>>()
    };
    let running = norm.running();
    for (name, found, expected) in [
        ("y", values(y), last(&expected.y)),
        ("grad_x", values(x.grad(&gradients).unwrap()), last(&expected.grad_x)),
        ("grad_gamma", gamma, expected.grad_gamma.clone()),
        ("grad_beta", beta, expected.grad_beta.clone()),
        ("running_mean", running[0].clone(), expected.running[0].clone()),
        ("running_var", running[1].clone(), expected.running[1].clone()),
    ] {
        let worst = difference(&found, &expected);
        println!("{dims:?}, {name}: {worst:.2} units");
        // The definition is rounded to f32 once, in being put into another order.
        assert!(worst <= DEFINITION + 1.0, "{dims:?}, {name}: {worst:.1} units");
    }
}

#[test]
fn a_network_with_channels_last_computes_the_definition() {
    step([4, 7, CHANNELS], 210);
    step([3, 5, 6, CHANNELS], 211);
    step([2, 3, 4, 2, CHANNELS], 212);
}

#[test]
fn memory_with_channels_last_is_not_copied() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device();
    let [one, two] = [ours(&device), ours(&device)];
    let random = |dims: [usize; 4]| {
        Tensor::<4>::random(dims, burn::tensor::Distribution::Default, &device.clone().autodiff())
    };
    let [first, _] = axes::<4>();
    let mut costs = [Cost::default(); 4];
    // The first steps compile.
    for _ in 0..3 {
        let mut cost = |of: usize, norm: &SyncBatchNorm, x| {
            // Running statistics that an earlier step has left are divided by the threads that did.
            drop(norm.valid());
            let mut y = None;
            costs[of] = counted(&device, || y = Some(norm.forward(x)));
            y.unwrap()
        };
        cost(0, &one, random([4, CHANNELS, 5, 6]));
        let y = cost(1, &one, random([4, 5, 6, CHANNELS]).permute(first));
        // What it made lies as its input does.
        cost(2, &two, y);
        // Neither layout: Burn copies.
        cost(3, &one, random([4, CHANNELS, 6, 5]).swap_dims(2, 3));
    }
    println!("first, last, behind it, neither: {costs:?}");
    assert_eq!(costs.map(|cost| cost.read), [0; 4]);
    assert_eq!(costs.map(|cost| cost.submitted), [1, 1, 1, 2]);
    assert_eq!(costs[3].dispatched, costs[0].dispatched + 1);
    assert_eq!(costs[2].dispatched, costs[1].dispatched);
}
