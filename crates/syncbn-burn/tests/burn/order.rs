//! Among Burn's own work: behind operations that are queued and not submitted, in front of others,
//! on views and strides, and in the pages of Burn's pool that everything shares.

use burn::tensor::{Tensor, TensorData};

use crate::common::{
    CHANNELS, DEADLINE, DEFINITION, Norm, Problem, devices, difference, ours, ranks, step, values,
};

const DIMS: [usize; 4] = [4, CHANNELS, 5, 6];

fn problem(seed: u64) -> Problem {
    Problem::random(&[DIMS[0]], DIMS[2] * DIMS[3], seed)
}

fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

#[test]
fn queued_work_before_and_after_is_seen_in_order() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let problem = problem(1);
    let norm = ours(&device).set(&problem.gamma, &problem.beta);
    let expected = step(&norm, &problem.ranks[0], &device);
    let twice = wide(expected.y.iter().map(|y| 2.0 * y).collect());
    for _ in 0..20 {
        // Powers of two are exact, so that the input is the same in the end.
        let x = Tensor::<4>::from_data(TensorData::new(problem.ranks[0].x.clone(), DIMS), &device)
            .require_grad();
        let queued = ((x.clone() * 4.0) / 2.0) * 0.5;
        let y = norm.forward(queued.clone());
        // Work that reads the input after the call, and would spoil it if it ran before; work on
        // the output.
        let spoiled = queued * 0.0;
        let after = (y.clone() + spoiled) * 2.0;
        assert_eq!(difference(&values(after), &twice), 0.0);
        let g = Tensor::<4>::from_data(TensorData::new(problem.ranks[0].g.clone(), DIMS), &device);
        let gradients = (y * ((g * 8.0) / 8.0)).sum().backward();
        assert_eq!(values(x.grad(&gradients).unwrap()), expected.grad_x);
    }
}

#[test]
fn channels_last_memory_is_read_and_written_in_place() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let problem = problem(2);
    let norm = ours(&device).set(&problem.gamma, &problem.beta);
    let expected = step(&norm, &problem.ranks[0], &device);
    let tensor =
        |values: &[f32]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), DIMS), &device);
    // (N, C, H, W) over memory that lies as (N, H, W, C): the sum with a zero of that form is
    // computed there.
    let last =
        |values: &[f32]| tensor(values).permute([0, 2, 3, 1]).add_scalar(0.0).permute([0, 3, 1, 2]);
    let x = last(&problem.ranks[0].x).detach().require_grad();
    let y = norm.forward(x.clone());
    // The gradient comes in the other layout once, in this one once.
    for g in [tensor(&problem.ranks[0].g), last(&problem.ranks[0].g)] {
        let y = norm.forward(x.clone());
        let gradients = (y * g).sum().backward();
        let found = values(x.grad(&gradients).unwrap());
        // Tiles differ between the layouts, and with them the order of sums.
        assert!(difference(&found, &wide(expected.grad_x.clone())) <= 2.0 * DEFINITION);
    }
    assert!(difference(&values(y), &wide(expected.y)) <= 2.0 * DEFINITION);
}

#[test]
fn views_with_other_strides_are_copied() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let problem = problem(3);
    let norm = ours(&device).set(&problem.gamma, &problem.beta);
    let batch = &problem.ranks[0];
    let expected = step(&norm, batch, &device);
    // A transposed input, a gradient that is one number over all positions, and a slice within a
    // larger tensor.
    let x = Tensor::<4>::from_data(TensorData::new(batch.x.clone(), DIMS), &device);
    let swapped = x.clone().swap_dims(2, 3).mul_scalar(1.0).swap_dims(2, 3);
    assert!(
        difference(&values(norm.forward(swapped)), &wide(expected.y.clone())) <= 2.0 * DEFINITION
    );
    let larger = Tensor::cat(vec![x.clone() * 3.0, x.clone(), x.clone() * 5.0], 0);
    let slice = larger.slice(4..8).require_grad();
    let y = norm.forward(slice.clone());
    assert_eq!(values(y.clone()), expected.y);
    // The gradient of a plain sum of y is 0, whatever the upstream: of y² it is not.
    let gradients = y.clone().powi_scalar(2).sum().backward();
    let once = values(slice.grad(&gradients).unwrap());
    let x = x.require_grad();
    let gradients = norm.forward(x.clone()).powi_scalar(2).sum().backward();
    assert_eq!(values(x.grad(&gradients).unwrap()), once);
    let x = x.detach().require_grad();
    let upstream = Tensor::<4>::full([1, 1, 1, 1], 0.5, &device).expand(DIMS);
    let gradients = (norm.forward(x.clone()) * upstream).sum().backward();
    // Σg·(x − mean) and g − mean g are 0 for a constant g: what is left is rounding of terms of
    // size 0.5·gamma/deviation.
    let gradient = values(x.grad(&gradients).unwrap());
    approx::assert_abs_diff_eq!(gradient[..], vec![0.0; gradient.len()][..], epsilon = 1e-5);
}

#[test]
fn two_calls_in_flight_keep_their_activations_apart() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let problems = [problem(4), problem(5)];
    let norm = ours(&device);
    let expected = problems.each_ref().map(|problem| step(&norm, &problem.ranks[0], &device));
    for order in [[0, 1], [1, 0]] {
        let calls = problems.each_ref().map(|problem| {
            let batch = &problem.ranks[0];
            let x = Tensor::<4>::from_data(TensorData::new(batch.x.clone(), DIMS), &device)
                .require_grad();
            let g = Tensor::<4>::from_data(TensorData::new(batch.g.clone(), DIMS), &device);
            ((norm.forward(x.clone() * 1.0) * g).sum(), x)
        });
        // Burn may put what it computes next where the inputs of the calls were, but for those that
        // backward needs.
        for _ in 0..8 {
            let other =
                Tensor::<4>::random(DIMS, burn::tensor::Distribution::Default, &device) * 3.0;
            assert!(values(other.sum())[0].is_finite());
        }
        for call in order {
            let gradients = calls[call].0.backward();
            assert_eq!(
                values(calls[call].1.grad(&gradients).unwrap()),
                expected[call].grad_x,
                "{call} of {order:?}"
            );
        }
    }
}
