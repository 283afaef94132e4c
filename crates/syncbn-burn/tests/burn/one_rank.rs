//! One rank: the module is Burn's `BatchNorm`.

use burn::module::{Module, Param};
use burn::nn::BatchNormConfig;
use burn::tensor::{Tensor, TensorData};
use syncbn_burn::{Error, SyncBatchNormConfig, try_backward};

use crate::common::{
    Batch, CHANNELS, DEADLINE, DEFINITION, Norm, Problem, Seen, alone, burns, devices, difference,
    ours, ranks, step, values,
};

/// Between Burn and this crate: Burn sums in f32, and n such additions err by n units of the sum of
/// magnitudes at most; of random sign, as here, by far less.
fn between(batch: &Batch) -> f64 {
    DEFINITION + (batch.dims[0] * batch.dims[2]) as f64
}

fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}

#[test]
fn one_rank_computes_what_burn_s_own_layer_computes() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    for (batch, positions, seed) in [(5, 7, 1), (4, 1, 2), (33, 1, 3), (3, 300, 4)] {
        let problem = Problem::random(&[batch], positions, seed);
        let what = format!("({batch}, {CHANNELS}, {positions})");
        let own = ours(&rank.device());
        let theirs = burns(&rank.device());
        let own = step(&own.set(&problem.gamma, &problem.beta), &problem.ranks[0], &rank.device());
        let alone = alone(&rank.device()).set(&problem.gamma, &problem.beta);
        assert_eq!(step(&alone, &problem.ranks[0], &rank.device()), own);
        let theirs =
            step(&theirs.set(&problem.gamma, &problem.beta), &problem.ranks[0], &rank.device());
        own.assert_close(&problem.expected()[0], DEFINITION, &format!("{what} and the definition"));
        own.assert_close(&theirs.widen(), between(&problem.ranks[0]), &format!("{what} and Burn"));
    }
}

#[test]
fn running_statistics_follow_several_batches_as_burn_s_do() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let own = SyncBatchNormConfig::new(CHANNELS).with_momentum(0.3).init(&device);
    let theirs = BatchNormConfig::new(CHANNELS).with_momentum(0.3).init(&device);
    for seed in 10..14 {
        let batch = &Problem::random(&[6], 5, seed).ranks[0];
        let found = step(&own, batch, &device).running;
        let expected = step(&theirs, batch, &device).running;
        for (found, expected) in found.iter().zip(&expected) {
            let expected: Vec<f64> = expected.iter().copied().map(f64::from).collect();
            assert!(
                difference(found, &expected) <= between(batch),
                "{found:?}, expected {expected:?}"
            );
        }
    }
    // In evaluation, of the same statistics.
    let own = own.load_record(theirs.clone().into_record());
    let batch = &Problem::random(&[6], 5, 14).ranks[0];
    let x = Tensor::<3>::from_data(TensorData::new(batch.x.clone(), batch.dims), &rank.device());
    let expected = wide(values(theirs.valid().apply(x.clone())));
    assert!(difference(&values(own.valid().apply(x)), &expected) <= DEFINITION);
}

#[test]
fn a_frozen_layer_normalizes_with_the_running_statistics_and_leaves_them() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let problem = Problem::random(&[4], 6, 20);
    let device = rank.device().autodiff();
    let own = ours(&device).freeze();
    let theirs = burns(&device).freeze();
    let x = || {
        Tensor::<3>::from_data(
            TensorData::new(problem.ranks[0].x.clone(), problem.ranks[0].dims),
            &device,
        )
    };
    let expected = wide(values(theirs.apply(x())));
    assert!(difference(&values(own.apply(x())), &expected) <= DEFINITION);
    assert_eq!(own.running(), [vec![0.0; CHANNELS], vec![1.0; CHANNELS]]);
    // Its statistics are constants for the gradient.
    let gradient =
        |y: Tensor<3>, x: Tensor<3>| values(x.grad(&y.powi_scalar(2).sum().backward()).unwrap());
    let [a, b] = [x().require_grad(), x().require_grad()];
    let found = gradient(own.apply(a.clone()), a);
    let expected = wide(gradient(theirs.apply(b.clone()), b));
    assert!(difference(&found, &expected) <= DEFINITION);
}

#[test]
fn backward_takes_the_parameters_of_its_forward_call() {
    // Two calls, then new parameters, then both differentiated: as when a step lies between.
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let problems = [Problem::random(&[4], 6, 30), Problem::random(&[3], 2, 31)];
    let expected: Vec<Seen<f32>> = problems
        .iter()
        .map(|problem| {
            step(&ours(&device).set(&problem.gamma, &problem.beta), &problem.ranks[0], &device)
        })
        .collect();
    let mut norm = ours(&device);
    let mut losses = Vec::new();
    for problem in &problems {
        let parameter = |values: &[f32]| Param::from_data(TensorData::from(values), &device);
        (norm.gamma, norm.beta) = (parameter(&problem.gamma), parameter(&problem.beta));
        let batch = &problem.ranks[0];
        let x = Tensor::<3>::from_data(TensorData::new(batch.x.clone(), batch.dims), &device)
            .require_grad();
        let g = Tensor::<3>::from_data(TensorData::new(batch.g.clone(), batch.dims), &device);
        losses.push(((norm.forward(x.clone()) * g).sum(), x, norm.gamma.val()));
    }
    for ((loss, x, gamma), expected) in losses.into_iter().zip(&expected) {
        let gradients = try_backward(&loss).unwrap();
        assert_eq!(values(x.grad(&gradients).unwrap()), expected.grad_x);
        assert_eq!(values(gamma.grad(&gradients).unwrap()), expected.grad_gamma);
    }
}

#[test]
fn an_input_without_a_gradient_still_gives_those_of_the_parameters() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let problem = Problem::random(&[4], 6, 40);
    let batch = &problem.ranks[0];
    let norm = ours(&device).set(&problem.gamma, &problem.beta);
    let expected = step(&norm, batch, &device);
    let x = Tensor::<3>::from_data(TensorData::new(batch.x.clone(), batch.dims), &device);
    let g = Tensor::<3>::from_data(TensorData::new(batch.g.clone(), batch.dims), &device);
    let gradients = (norm.forward(x) * g).sum().backward();
    let [gamma, beta] = norm.affine().map(|parameter| values(parameter.grad(&gradients).unwrap()));
    assert_eq!((gamma, beta), (expected.grad_gamma, expected.grad_beta));
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let norm = ours(&device);
    // In evaluation.
    let error = norm
        .valid()
        .try_forward(Tensor::<3>::zeros([2, CHANNELS + 1, 4], &rank.device()))
        .unwrap_err();
    assert_eq!(error, Error::Input { found: vec![2, CHANNELS + 1, 4], channels: CHANNELS });
    // A device of no rank.
    let (other, _) = &devices[1];
    let error = ours(other)
        .try_forward(Tensor::<3>::zeros([2, CHANNELS, 4], &other.clone().autodiff()))
        .unwrap_err();
    assert!(matches!(error, Error::NoRank { .. }), "{error}");
    // In training, the layer says it.
    let error = norm.try_forward(Tensor::<3>::zeros([2, CHANNELS + 1, 4], &device)).unwrap_err();
    let expected = format!("x has {} channels", CHANNELS + 1);
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(norm.running(), [vec![0.0; CHANNELS], vec![1.0; CHANNELS]]);
}

#[test]
fn settings_outside_their_range_are_refused() {
    let devices = devices();
    let (device, _) = &devices[0];
    for (config, name) in [
        (SyncBatchNormConfig::new(2).with_epsilon(0.0), "epsilon"),
        (SyncBatchNormConfig::new(2).with_epsilon(f64::NAN), "epsilon"),
        (SyncBatchNormConfig::new(2).with_momentum(1.5), "momentum"),
        (SyncBatchNormConfig::new(2).with_momentum(f64::NAN), "momentum"),
        (SyncBatchNormConfig::new(0), "num_features"),
    ] {
        let error = config.try_init(device).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
