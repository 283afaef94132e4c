//! Where backward writes: the caller's tensors, a part of them, and what does not fit.

use pollster::block_on;
use syncbn::{
    Backward, Error, Saved, SyncBatchNorm, Tensor, config::AffineGradient, error::ArgumentError,
    stats::BackwardReport,
};

use super::common::*;
use super::problem::{Found, Problem};

const CHANNELS: usize = 3;

fn problem(seed: u64) -> Problem {
    Problem::random(&[&[4, CHANNELS, 5], &[2, CHANNELS, 1001], &[0, CHANNELS]], seed)
}

/// Tensors like these, full of a value that must not matter.
fn like(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors
        .iter()
        .map(|tensor| {
            let values = vec![f32::NAN; tensor.element_count()];
            tensor.device().upload(tensor.dims(), &values).unwrap()
        })
        .collect()
}

fn vectors(layer: &SyncBatchNorm) -> Vec<Tensor> {
    layer
        .devices()
        .iter()
        .map(|device| device.upload(&[CHANNELS], &[f32::NAN; CHANNELS]).unwrap())
        .collect()
}

#[test]
fn each_target_may_be_left_out_and_the_exchange_takes_place_all_the_same() {
    for kind in Kind::ALL {
        for affine in [AffineGradient::Local, AffineGradient::GroupSum] {
            let mut problem = problem(500);
            problem.config = problem.config.with_affine_gradient(affine);
            let layer = problem.layer(kind);
            let inputs = problem.inputs(&layer);
            let grad_outputs = problem.upstream(&layer);
            let saved = block_on(layer.forward_train(&inputs)).unwrap().saved;
            let full =
                block_on(layer.backward(&saved, Backward::of(&inputs, &grad_outputs))).unwrap();
            let expected = Found::read(&full);
            let full_report = full.report.unwrap();
            for wanted in 0..8 {
                let [with_inputs, with_weights, with_biases] =
                    [1, 2, 4].map(|bit| wanted & bit != 0);
                let mut grad_inputs = like(&inputs);
                let mut grad_weights = vectors(&layer);
                let mut grad_biases = vectors(&layer);
                let request = Backward::of(&inputs, &grad_outputs)
                    .input_gradient(with_inputs.then_some(&mut grad_inputs))
                    .weight_gradient(with_weights.then_some(&mut grad_weights))
                    .bias_gradient(with_biases.then_some(&mut grad_biases));
                let report = block_on(layer.backward(&saved, request)).unwrap().report.unwrap();
                assert_eq!(
                    (&report.local, &report.global),
                    (&full_report.local, &full_report.global)
                );
                assert_eq!(report.global.unwrap().channels().len(), CHANNELS);
                for (found, expected, written) in [
                    (read(&grad_inputs), &expected.grad_inputs, with_inputs),
                    (read(&grad_weights), expected.grad_weights.as_ref().unwrap(), with_weights),
                    (read(&grad_biases), expected.grad_biases.as_ref().unwrap(), with_biases),
                ] {
                    let untouched = found.iter().flatten().all(|value| value.is_nan());
                    let right = if written { bits(&found) == bits(expected) } else { untouched };
                    assert!(
                        right,
                        "{kind:?}, {affine:?}, wanted {wanted:03b}: {found:?}, expected \
                        {expected:?}"
                    );
                }
            }
        }
    }
}

/// One of the lists of a call.
type List = fn(&mut Call) -> &mut Vec<Tensor>;

/// What is given to one call of `backward`; every part of it fits until a test spoils one.
struct Call {
    layer: SyncBatchNorm,
    saved: Saved,
    inputs: Vec<Tensor>,
    grad_outputs: Vec<Tensor>,
    grad_inputs: Vec<Tensor>,
    grad_weights: Vec<Tensor>,
    grad_biases: Vec<Tensor>,
}

impl Call {
    fn new(kind: Kind) -> Self {
        let problem = problem(501);
        let layer = problem.layer(kind);
        let inputs = problem.inputs(&layer);
        let grad_outputs = problem.upstream(&layer);
        let saved = block_on(layer.forward_train(&inputs)).unwrap().saved;
        let grad_inputs = like(&inputs);
        let grad_weights = vectors(&layer);
        let grad_biases = vectors(&layer);
        Self { layer, saved, inputs, grad_outputs, grad_inputs, grad_weights, grad_biases }
    }

    fn run(&mut self) -> Result<BackwardReport, Error> {
        let request = Backward::of(&self.inputs, &self.grad_outputs)
            .input_gradient(&mut self.grad_inputs)
            .weight_gradient(&mut self.grad_weights)
            .bias_gradient(&mut self.grad_biases);
        block_on(self.layer.backward(&self.saved, request))
            .map(|gradients| gradients.report.unwrap())
    }

    /// The call fails before it has written anything.
    fn refused(mut self) -> ArgumentError {
        let before = self.layer.running_stats();
        let Error::Argument(error) = self.run().unwrap_err() else { panic!("not an argument") };
        assert_eq!(self.layer.running_stats(), before);
        let targets = [&self.grad_inputs, &self.grad_weights, &self.grad_biases];
        let values = targets.map(|tensors| read(tensors));
        assert!(
            values.iter().flatten().flatten().all(|value| value.is_nan()),
            "{error}: a target was written"
        );
        error
    }
}

#[test]
fn dims_that_do_not_fit_are_refused() {
    for kind in Kind::ALL {
        Call::new(kind).run().unwrap();
        let spoil: [(&'static str, List, &[usize], &[usize]); 4] = [
            (
                "grad_output",
                |call| &mut call.grad_outputs,
                &[2, CHANNELS, 1000],
                &[2, CHANNELS, 1001],
            ),
            (
                "input_gradient",
                |call| &mut call.grad_inputs,
                &[2, CHANNELS, 7, 143],
                &[2, CHANNELS, 1001],
            ),
            ("weight_gradient", |call| &mut call.grad_weights, &[CHANNELS + 1], &[CHANNELS]),
            ("bias_gradient", |call| &mut call.grad_biases, &[1, CHANNELS], &[CHANNELS]),
        ];
        for (argument, list, found, expected) in spoil {
            let mut call = Call::new(kind);
            let device = call.layer.devices()[1].clone();
            let values = vec![f32::NAN; found.iter().product()];
            list(&mut call)[1] = device.upload(found, &values).unwrap();
            let error = call.refused();
            let found = found.to_vec();
            let expected = expected.to_vec();
            assert!(error.to_string().contains(&format!("{argument}[1]")), "{error}");
            assert_eq!(
                error,
                ArgumentError::Dims { argument, rank: Some(1), found, expected },
                "{kind:?}"
            );

            let mut call = Call::new(kind);
            list(&mut call).pop();
            assert_eq!(
                call.refused(),
                ArgumentError::RankCount { argument, found: 2, expected: 3 },
                "{kind:?}"
            );
        }
        let mut call = Call::new(kind);
        call.inputs.pop();
        assert_eq!(
            call.refused(),
            ArgumentError::RankCount { argument: "x", found: 2, expected: 3 }
        );
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    let lists: [(&str, List); 4] = [
        ("grad_output", |call| &mut call.grad_outputs),
        ("input_gradient", |call| &mut call.grad_inputs),
        ("weight_gradient", |call| &mut call.grad_weights),
        ("bias_gradient", |call| &mut call.grad_biases),
    ];
    for (expected, list) in lists {
        for kind in Kind::ALL {
            let mut call = Call::new(kind);
            let other = match kind {
                Kind::Gpu => syncbn::Device::host(),
                _ => virtual_gpus()[2].clone(),
            };
            let dims = list(&mut call)[1].dims().to_vec();
            list(&mut call)[1] =
                other.upload(&dims, &vec![f32::NAN; dims.iter().product()]).unwrap();
            let error = call.refused();
            let ArgumentError::WrongDevice { argument, rank: Some(1), .. } = error else {
                panic!("{kind:?}: {error:?}")
            };
            assert_eq!(argument, expected, "{kind:?}");
        }
    }
}
