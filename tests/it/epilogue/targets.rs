//! Where backward writes the gradient of a residual: the caller's tensors, alone or with others,
//! and what does not fit.

use half::{bf16, f16};
use pollster::block_on;
use syncbn::{DType, Device, Error, Layout, Tensor, error::ArgumentError, low_level::Epilogue};

use super::common::*;
use super::devices::On;
use super::problem::{EPILOGUES, Problem, Tensors, shape};
use super::stored::{Layouts, Types, read_as, upload_as};

/// Tensors like these, full of a value that must not matter.
fn like(tensors: &[Tensor]) -> Vec<Tensor> {
    let upload = |tensor: &Tensor| {
        let mut target = tensor.device().zeros_of(tensor.dims(), tensor.dtype()).unwrap();
        let count = tensor.element_count();
        match tensor.dtype() {
            DType::F32 => target.write(&vec![f32::NAN; count]),
            DType::F16 => target.write(&vec![f16::NAN; count]),
            DType::BF16 => target.write(&vec![bf16::NAN; count]),
        }
        .unwrap();
        target.with_layout(tensor.layout())
    };
    tensors.iter().map(upload).collect()
}

#[test]
fn each_target_may_be_left_out() {
    for on in On::ALL {
        for epilogue in [Epilogue::ADD, Epilogue::ADD_RELU] {
            for (seed, types) in (1000..).zip(Types::all()) {
                let problem = Problem::random(&shape(seed), &[types], epilogue, [true, true], seed);
                let layer = problem.layer(on.devices(3));
                let layouts = Layouts::all()[seed as usize % 4];
                let make = |batches: &[Batch], dtype: DType, layout: Layout| -> Vec<Tensor> {
                    let pairs = batches.iter().zip(on.devices(3));
                    pairs.map(|(batch, device)| upload_as(&device, batch, dtype, layout)).collect()
                };
                let tensors = Tensors {
                    x: make(&problem.x, types.x, layouts.x),
                    residuals: problem
                        .residuals
                        .as_deref()
                        .map(|batches| make(batches, types.x, layouts.x)),
                    g: make(&problem.g, types.other, layouts.g),
                };
                let saved = block_on(layer.forward_train(tensors.forward())).unwrap().saved;
                let full = block_on(layer.backward(&saved, tensors.backward())).unwrap();
                let full_report = full.report.as_ref().unwrap();
                let vectors = || -> Vec<Tensor> { like(full.bias.as_ref().unwrap()) };
                for wanted in 0..16 {
                    let [inputs, weights, biases, residuals] =
                        [1, 2, 4, 8].map(|bit| wanted & bit != 0);
                    let [mut dx, mut dz] = [like(&tensors.x), like(&tensors.x)];
                    let [mut dw, mut db] = [vectors(), vectors()];
                    let request = tensors
                        .backward()
                        .input_gradient(inputs.then_some(&mut dx))
                        .weight_gradient(weights.then_some(&mut dw))
                        .bias_gradient(biases.then_some(&mut db))
                        .residual_gradient(residuals.then_some(&mut dz));
                    let report = block_on(layer.backward(&saved, request)).unwrap().report.unwrap();
                    assert_eq!(
                        (&report.local, &report.global),
                        (&full_report.local, &full_report.global)
                    );
                    let what = format!(
                        "{on:?}, {epilogue:?}, {types:?}, {layouts:?}, wanted {wanted:04b}"
                    );
                    let activation =
                        |name: &str, found: &[Tensor], expected: &[Tensor], written: bool| {
                            for (rank, batch) in problem.x.iter().enumerate() {
                                let [found, expected] =
                                    [found, expected].map(|tensors| read_as(&tensors[rank], batch));
                                let untouched = found.iter().all(|value| value.is_nan());
                                let same = bits(&[found]) == bits(&[expected]);
                                assert!(
                                    if written { same } else { untouched },
                                    "{what}: {name}[{rank}]"
                                );
                            }
                        };
                    activation("grad_inputs", &dx, &full.input, inputs);
                    activation(
                        "residual_gradient",
                        &dz,
                        full.residual.as_ref().unwrap(),
                        residuals,
                    );
                    for (found, expected, written) in
                        [(&dw, &full.weight, weights), (&db, &full.bias, biases)]
                    {
                        let found = read(found);
                        let expected = read(expected.as_ref().unwrap());
                        let untouched = found.iter().flatten().all(|value| value.is_nan());
                        assert!(
                            if written { bits(&found) == bits(&expected) } else { untouched },
                            "{what}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn an_epilogue_without_a_residual_has_no_gradient_of_one() {
    for on in On::ALL {
        for epilogue in EPILOGUES.into_iter().filter(|epilogue| !epilogue.adds_residual()) {
            let problem = Problem::plain(&shape(0), epilogue, 1100);
            let layer = problem.layer(on.devices(3));
            let tensors = problem.tensors(&layer);
            let saved = block_on(layer.forward_train(&tensors.x)).unwrap().saved;
            let mut dz = like(&tensors.x);
            let request = tensors.backward_without().residual_gradient(&mut dz);
            let error = block_on(layer.backward(&saved, request)).unwrap_err();
            let argument = "residual_gradient";
            assert_eq!(error, ArgumentError::ResidualNotAdded { argument }.into());
            assert!(read(&dz).iter().flatten().all(|value| value.is_nan()));
        }
    }
}

/// A target that does not fit in place of the second rank's, and the error that it gives.
type Spoil = (&'static str, fn(&Tensor, Kind) -> Tensor, fn(&ArgumentError) -> bool);

const SPOILS: [Spoil; 4] = [
    (
        "other dims",
        |dz, _| dz.device().zeros(&[2, 3, 4]).unwrap(),
        |error| {
            matches!(
                error,
                ArgumentError::Dims { argument: "residual_gradient", rank: Some(1), .. }
            )
        },
    ),
    (
        "f16",
        |dz, _| dz.device().zeros_of(dz.dims(), DType::F16).unwrap(),
        |error| {
            matches!(
                error,
                ArgumentError::DType { argument, found: DType::F16, .. }
                    if argument == "residual_gradient[1]"
            )
        },
    ),
    (
        "channels last",
        |dz, _| dz.device().zeros(dz.dims()).unwrap().with_layout(Layout::ChannelsLast),
        |error| {
            matches!(
                error,
                ArgumentError::Layout { argument: "residual_gradient", rank: Some(1), .. }
            )
        },
    ),
    (
        "another device",
        |dz, kind| {
            let other = if kind == Kind::Gpu { Device::host() } else { virtual_gpus()[2].clone() };
            other.zeros(dz.dims()).unwrap()
        },
        |error| {
            matches!(
                error,
                ArgumentError::WrongDevice { argument: "residual_gradient", rank: Some(1), .. }
            )
        },
    ),
];

#[test]
fn targets_that_do_not_fit_are_refused_before_anything_is_written() {
    for kind in Kind::ALL {
        for epilogue in [Epilogue::ADD, Epilogue::ADD_RELU] {
            let problem =
                Problem::plain(&[vec![2, 3, 3], vec![2, 3, 3], vec![1, 3, 3]], epilogue, 1101);
            let layer = problem.layer(kind.devices(3));
            let tensors = problem.tensors(&layer);
            let saved = block_on(layer.forward_train(tensors.forward())).unwrap().saved;
            for (what, spoil, right) in SPOILS {
                let mut dx = like(&tensors.x);
                let mut dz = like(&tensors.x);
                dz[1] = spoil(&dz[1], kind);
                let request = tensors.backward().input_gradient(&mut dx).residual_gradient(&mut dz);
                let result = block_on(layer.backward(&saved, request));
                let Err(Error::Argument(error)) = result else { panic!("{what}: {result:?}") };
                assert!(right(&error), "{kind:?}, {what}: {error:?}");
                assert!(error.to_string().contains("residual_gradient[1]"), "{error}");
                assert!(
                    read(&dx).iter().flatten().all(|value| value.is_nan()),
                    "{what}: grad_inputs were written"
                );
                assert!(
                    read(&dz[..1]).iter().flatten().all(|value| value.is_nan()),
                    "{what}: written"
                );
            }
            let mut short = like(&tensors.x[..2]);
            let request = tensors.backward().residual_gradient(&mut short);
            let error = block_on(layer.backward(&saved, request)).unwrap_err();
            let expected =
                ArgumentError::RankCount { argument: "residual_gradient", found: 2, expected: 3 };
            assert_eq!(error, Error::Argument(expected));
        }
    }
}
