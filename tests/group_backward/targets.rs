//! Where backward writes: the caller's tensors, a part of them, and what does not fit.

use pollster::block_on;
use syncbn::{AffineGradient, ArgumentError, BackwardReport, DeviceGroup, Error, GradTargets, SavedForward, Tensor};

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

fn vectors(group: &DeviceGroup) -> Vec<Tensor> {
    group.devices().iter().map(|device| device.upload(&[CHANNELS], &[f32::NAN; CHANNELS]).unwrap()).collect()
}

#[test]
fn each_target_may_be_left_out_and_the_exchange_takes_place_all_the_same() {
    for kind in Kind::ALL {
        for affine in [AffineGradient::Local, AffineGradient::GroupSum] {
            let mut problem = problem(500);
            problem.config = problem.config.with_affine_gradient(affine);
            let mut group = problem.group(kind);
            let (inputs, grad_outputs) = (problem.inputs(&group), problem.upstream(&group));
            let saved = block_on(group.forward_train(&inputs)).unwrap().saved;
            let full = block_on(group.backward(&saved, &inputs, &grad_outputs)).unwrap();
            let expected = Found::read(&full);
            for wanted in 0..8 {
                let [with_inputs, with_weights, with_biases] = [1, 2, 4].map(|bit| wanted & bit != 0);
                let (mut grad_inputs, mut grad_weights, mut grad_biases) =
                    (like(&inputs), vectors(&group), vectors(&group));
                let targets = GradTargets {
                    grad_inputs: with_inputs.then_some(grad_inputs.as_mut_slice()),
                    grad_weights: with_weights.then_some(grad_weights.as_mut_slice()),
                    grad_biases: with_biases.then_some(grad_biases.as_mut_slice()),
                    ..GradTargets::default()
                };
                let report = block_on(group.backward_into(&saved, &inputs, &grad_outputs, targets)).unwrap();
                assert_eq!((&report.local, &report.global), (&full.report.local, &full.report.global));
                assert_eq!(report.global.len(), CHANNELS);
                for (found, expected, written) in [
                    (read(&grad_inputs), &expected.grad_inputs, with_inputs),
                    (read(&grad_weights), expected.grad_weights.as_ref().unwrap(), with_weights),
                    (read(&grad_biases), expected.grad_biases.as_ref().unwrap(), with_biases),
                ] {
                    let untouched = found.iter().flatten().all(|value| value.is_nan());
                    let right = if written { bits(&found) == bits(expected) } else { untouched };
                    assert!(right, "{kind:?}, {affine:?}, wanted {wanted:03b}: {found:?}, expected {expected:?}");
                }
            }
        }
    }
}

/// One of the lists of a call.
type List = fn(&mut Call) -> &mut Vec<Tensor>;

/// What is given to one call of `backward_into`; every part of it fits until a test spoils one.
struct Call {
    group: DeviceGroup,
    saved: SavedForward,
    inputs: Vec<Tensor>,
    grad_outputs: Vec<Tensor>,
    grad_inputs: Vec<Tensor>,
    grad_weights: Vec<Tensor>,
    grad_biases: Vec<Tensor>,
}

impl Call {
    fn new(kind: Kind) -> Self {
        let problem = problem(501);
        let mut group = problem.group(kind);
        let (inputs, grad_outputs) = (problem.inputs(&group), problem.upstream(&group));
        let saved = block_on(group.forward_train(&inputs)).unwrap().saved;
        let (grad_inputs, grad_weights, grad_biases) = (like(&inputs), vectors(&group), vectors(&group));
        Self { group, saved, inputs, grad_outputs, grad_inputs, grad_weights, grad_biases }
    }

    fn run(&mut self) -> Result<BackwardReport, Error> {
        let targets = GradTargets {
            grad_inputs: Some(&mut self.grad_inputs),
            grad_weights: Some(&mut self.grad_weights),
            grad_biases: Some(&mut self.grad_biases),
            ..GradTargets::default()
        };
        block_on(self.group.backward_into(&self.saved, &self.inputs, &self.grad_outputs, targets))
    }

    /// The call fails before it has written anything.
    fn refused(mut self) -> ArgumentError {
        let before = self.group.running_stats().cloned();
        let Error::Argument(error) = self.run().unwrap_err() else { panic!("not an argument") };
        assert_eq!(self.group.running_stats().cloned(), before);
        let targets = [&self.grad_inputs, &self.grad_weights, &self.grad_biases];
        let values = targets.map(|tensors| read(tensors));
        assert!(values.iter().flatten().flatten().all(|value| value.is_nan()), "{error}: a target was written");
        error
    }
}

#[test]
fn dims_that_do_not_fit_are_refused() {
    for kind in Kind::ALL {
        Call::new(kind).run().unwrap();
        let spoil: [(&'static str, List, &[usize], &[usize]); 4] = [
            ("grad_outputs", |call| &mut call.grad_outputs, &[2, CHANNELS, 1000], &[2, CHANNELS, 1001]),
            ("grad_inputs", |call| &mut call.grad_inputs, &[2, CHANNELS, 7, 143], &[2, CHANNELS, 1001]),
            ("grad_weights", |call| &mut call.grad_weights, &[CHANNELS + 1], &[CHANNELS]),
            ("grad_biases", |call| &mut call.grad_biases, &[1, CHANNELS], &[CHANNELS]),
        ];
        for (argument, list, found, expected) in spoil {
            let mut call = Call::new(kind);
            let device = call.group.devices()[1].clone();
            let values = vec![f32::NAN; found.iter().product()];
            list(&mut call)[1] = device.upload(found, &values).unwrap();
            let error = call.refused();
            let (found, expected) = (found.to_vec(), expected.to_vec());
            assert!(error.to_string().contains(&format!("{argument}[1]")), "{error}");
            assert_eq!(error, ArgumentError::Dims { argument, rank: 1, found, expected }, "{kind:?}");

            let mut call = Call::new(kind);
            list(&mut call).pop();
            assert_eq!(call.refused(), ArgumentError::RankCount { argument, found: 2, expected: 3 }, "{kind:?}");
        }
        let mut call = Call::new(kind);
        call.inputs.pop();
        assert_eq!(call.refused(), ArgumentError::RankCount { argument: "inputs", found: 2, expected: 3 });
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    let lists: [(&str, List); 4] = [
        ("grad_outputs", |call| &mut call.grad_outputs),
        ("grad_inputs", |call| &mut call.grad_inputs),
        ("grad_weights", |call| &mut call.grad_weights),
        ("grad_biases", |call| &mut call.grad_biases),
    ];
    for (expected, list) in lists {
        for kind in Kind::ALL {
            let mut call = Call::new(kind);
            let other = match kind {
                Kind::Gpu => syncbn::Device::host(),
                _ => virtual_gpus()[2].clone(),
            };
            let dims = list(&mut call)[1].dims().to_vec();
            list(&mut call)[1] = other.upload(&dims, &vec![f32::NAN; dims.iter().product()]).unwrap();
            let error = call.refused();
            let ArgumentError::WrongDevice { argument, rank: 1, .. } = error else { panic!("{kind:?}: {error:?}") };
            assert_eq!(argument, expected, "{kind:?}");
        }
    }
}
