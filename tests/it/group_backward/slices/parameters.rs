//! Weight and bias that are slices of the application's buffers, which an optimizer writes.

use pollster::block_on;
use syncbn::{
    Backward, BatchNormConfig, Error, Forward, SyncBatchNorm, Tensor, error::ArgumentError,
};

use super::super::common::*;
use super::super::problem::{Found, Problem};
use super::{Application, CHANNELS, trained};

#[test]
fn what_is_written_over_weight_or_bias_is_refused() {
    // A kernel would read the parameter while it is overwritten.
    let app = Application::new();
    let dims = [2, CHANNELS, 4];
    let page = app.page(8, 96);
    let mut layer =
        SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [app.handle.clone()]).unwrap();
    let vector = |slot: u64| page.slice(slot, &[CHANNELS]);
    layer.set_parameter_tensors([vector(0)], [vector(1)]).unwrap();
    let x = page.slice(2, &dims);
    let g = page.slice(3, &dims);
    for slot in [0, 1] {
        let mut y = page.slice(slot, &dims);
        let error = block_on(layer.forward_train(Forward::of(&x).write_to(&mut y))).map(|_| ());
        assert!(
            matches!(error, Err(Error::Argument(ArgumentError::Overlap { .. }))),
            "output: {error:?}"
        );
    }
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    for slot in [0, 1] {
        let mut dx = page.slice(slot, &dims);
        let error = block_on(layer.backward(&saved, Backward::of(&x, &g).input_gradient(&mut dx)))
            .map(|_| ());
        assert!(
            matches!(error, Err(Error::Argument(ArgumentError::Overlap { .. }))),
            "input_gradient: {error:?}"
        );
    }
}

#[test]
fn backward_takes_the_parameters_of_its_forward_call_given_again() {
    // A framework whose optimizer makes new parameters differentiates a call from before the step.
    let app = Application::new();
    let problem = Problem::random(&[&[4, CHANNELS, 5]], 605);
    let page = app.page(4, 4 * CHANNELS as u64);
    let other = Parameters::random(CHANNELS, &mut Random::new(606));
    let values = [&problem.parameters.weight, &problem.parameters.bias, &other.weight, &other.bias];
    for (slot, values) in (0..).zip(values) {
        page.write(slot, values);
    }
    let mut layer = SyncBatchNorm::new(problem.config.clone(), [app.handle.clone()]).unwrap();
    let set = |layer: &mut SyncBatchNorm, slots: [u64; 2]| {
        let [weight, bias] = slots.map(|slot| Some(page.slice(slot, &[CHANNELS])));
        layer.set_parameter_tensors(weight, bias).unwrap();
    };
    set(&mut layer, [0, 1]);
    let x = problem.inputs(&layer);
    let g = problem.upstream(&layer);
    let saved = block_on(layer.forward_train(&x)).unwrap().saved;
    let backward = |layer: &SyncBatchNorm| block_on(layer.backward(&saved, Backward::of(&x, &g)));
    let expected = Found::read(&backward(&layer).unwrap());
    for slots in [[2, 1], [0, 3], [2, 3]] {
        set(&mut layer, slots);
        let error = backward(&layer).unwrap_err();
        let Error::Argument(ArgumentError::NotSaved { argument, .. }) = &error else {
            panic!("{slots:?}: {error}")
        };
        assert_eq!(argument, "weight or bias", "{slots:?}");
    }
    set(&mut layer, [0, 1]);
    assert_eq!(Found::read(&backward(&layer).unwrap()).bits(), expected.bits());
}

#[test]
fn what_an_optimizer_writes_to_the_caller_s_parameters_shows_in_the_next_call() {
    let app = Application::new();
    let problem = Problem::random(&[&[4, CHANNELS, 5], &[3, CHANNELS]], 603);
    let page = app.page(4, 4 * CHANNELS as u64);
    let slices = |slots: [u64; 2]| slots.map(|slot| page.slice(slot, &[CHANNELS]));
    let mut layer =
        SyncBatchNorm::new(problem.config.clone(), vec![app.handle.clone(); 2]).unwrap();
    layer.set_parameter_tensors(slices([0, 1]), slices([3, 2])).unwrap();
    let x = problem.inputs(&layer);
    let g = problem.upstream(&layer);
    for seed in 604..607 {
        let parameters = Parameters::random(CHANNELS, &mut Random::new(seed));
        for (slot, values) in [
            (0, &parameters.weight),
            (1, &parameters.weight),
            (3, &parameters.bias),
            (2, &parameters.bias),
        ] {
            page.write(slot, values);
        }
        let expected = Problem { parameters, ..problem.clone() };
        let own = trained(&expected, &app.handle);
        let forward = block_on(layer.forward_train(&x)).unwrap();
        let y = block_on(own.forward_train(&x)).unwrap();
        assert_eq!(bits(&read(&forward.output)), bits(&read(&y.output)), "seed {seed}");
        let found = block_on(layer.backward(&forward.saved, Backward::of(&x, &g))).unwrap();
        let gradients = block_on(own.backward(&y.saved, Backward::of(&x, &g))).unwrap();
        assert_eq!(Found::read(&found).bits(), Found::read(&gradients).bits(), "seed {seed}");
        // The state that would be saved is what the optimizer wrote.
        let state = block_on(layer.state()).unwrap();
        assert_eq!(state.weight.as_ref(), Some(&expected.parameters.weight));
        assert_eq!(state.bias.as_ref(), Some(&expected.parameters.bias));
    }
}

#[test]
fn parameter_tensors_that_do_not_fit_are_refused_and_set_nothing() {
    for kind in Kind::ALL {
        let problem = Problem::random(&[&[4, CHANNELS, 5], &[3, CHANNELS]], 608);
        let mut layer = problem.layer(kind);
        let before = block_on(layer.state()).unwrap();
        let ones = |dims: &[usize], count: usize| -> Vec<Tensor> {
            let ones = vec![1.0; dims.iter().product()];
            layer.devices()[..count]
                .iter()
                .map(|device| device.upload(dims, &ones).unwrap())
                .collect()
        };
        let mut good = ones(&[CHANNELS], 2);
        let cases = [
            (
                ones(&[CHANNELS], 1),
                ArgumentError::RankCount { argument: "bias", found: 1, expected: 2 },
            ),
            (
                ones(&[CHANNELS + 1], 2),
                ArgumentError::Dims {
                    argument: "bias",
                    rank: Some(0),
                    found: vec![4],
                    expected: vec![3],
                },
            ),
            (
                ones(&[1, CHANNELS], 2),
                ArgumentError::Dims {
                    argument: "bias",
                    rank: Some(0),
                    found: vec![1, 3],
                    expected: vec![3],
                },
            ),
        ];
        for (bad, expected) in cases {
            // The good half is not taken either.
            let error = layer.set_parameter_tensors(std::mem::take(&mut good), bad).unwrap_err();
            assert_eq!(error, Error::Argument(expected), "{kind:?}");
            assert_eq!(block_on(layer.state()).unwrap(), before, "{kind:?}");
        }
    }
}
