//! Where backward writes the gradient of a residual: the caller's tensors, alone or with others, and what does not fit.

use half::{bf16, f16};
use pollster::block_on;
use syncbn::{ArgumentError, DType, Device, Epilogue, Error, GradTargets, Layout, Tensor};

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
        for epilogue in [Epilogue::Add, Epilogue::AddRelu] {
            for (seed, types) in (1000..).zip(Types::all()) {
                let problem = Problem::random(&shape(seed), &[types], epilogue, [true, true], seed);
                let mut group = problem.group(on.devices(3));
                let layouts = Layouts::all()[seed as usize % 4];
                let make = |batches: &[Batch], dtype: DType, layout: Layout| -> Vec<Tensor> {
                    let pairs = batches.iter().zip(on.devices(3));
                    pairs.map(|(batch, device)| upload_as(&device, batch, dtype, layout)).collect()
                };
                let tensors = Tensors {
                    x: make(&problem.x, types.x, layouts.x),
                    residuals: problem.residuals.as_deref().map(|batches| make(batches, types.x, layouts.x)),
                    g: make(&problem.g, types.other, layouts.g),
                };
                let saved = block_on(group.forward_train(tensors.inputs())).unwrap().saved;
                let full = block_on(group.backward(&saved, tensors.inputs(), &tensors.g)).unwrap();
                let vectors = || -> Vec<Tensor> { like(full.grad_biases.as_ref().unwrap()) };
                for wanted in 0..16 {
                    let [inputs, weights, biases, residuals] = [1, 2, 4, 8].map(|bit| wanted & bit != 0);
                    let [mut dx, mut dz] = [like(&tensors.x), like(&tensors.x)];
                    let [mut dw, mut db] = [vectors(), vectors()];
                    let targets = GradTargets {
                        grad_inputs: inputs.then_some(dx.as_mut_slice()),
                        grad_weights: weights.then_some(dw.as_mut_slice()),
                        grad_biases: biases.then_some(db.as_mut_slice()),
                        grad_residuals: residuals.then_some(dz.as_mut_slice()),
                    };
                    let report = block_on(group.backward_into(&saved, tensors.inputs(), &tensors.g, targets)).unwrap();
                    assert_eq!((&report.local, &report.global), (&full.report.local, &full.report.global));
                    let what = format!("{on:?}, {epilogue:?}, {types:?}, {layouts:?}, wanted {wanted:04b}");
                    let activation = |name: &str, found: &[Tensor], expected: &[Tensor], written: bool| {
                        for (rank, batch) in problem.x.iter().enumerate() {
                            let [found, expected] = [found, expected].map(|tensors| read_as(&tensors[rank], batch));
                            let untouched = found.iter().all(|value| value.is_nan());
                            let same = bits(&[found]) == bits(&[expected]);
                            assert!(if written { same } else { untouched }, "{what}: {name}[{rank}]");
                        }
                    };
                    activation("grad_inputs", &dx, &full.grad_inputs, inputs);
                    activation("grad_residuals", &dz, full.grad_residuals.as_ref().unwrap(), residuals);
                    for (found, expected, written) in
                        [(&dw, &full.grad_weights, weights), (&db, &full.grad_biases, biases)]
                    {
                        let (found, expected) = (read(found), read(expected.as_ref().unwrap()));
                        let untouched = found.iter().flatten().all(|value| value.is_nan());
                        assert!(if written { bits(&found) == bits(&expected) } else { untouched }, "{what}");
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
            let mut group = problem.group(on.devices(3));
            let tensors = problem.tensors(&group);
            let saved = block_on(group.forward_train(&tensors.x)).unwrap().saved;
            let mut dz = like(&tensors.x);
            let targets = GradTargets { grad_residuals: Some(&mut dz), ..GradTargets::default() };
            let error = block_on(group.backward_into(&saved, &tensors.x, &tensors.g, targets)).unwrap_err();
            assert_eq!(error, Error::Argument(ArgumentError::NoSuchParameter { name: "residuals" }));
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
        |error| matches!(error, ArgumentError::Dims { argument: "grad_residuals", rank: 1, .. }),
    ),
    (
        "f16",
        |dz, _| dz.device().zeros_of(dz.dims(), DType::F16).unwrap(),
        |error| matches!(error, ArgumentError::DType { argument, found: DType::F16, .. } if argument == "grad_residuals[1]"),
    ),
    (
        "channels last",
        |dz, _| dz.device().zeros(dz.dims()).unwrap().with_layout(Layout::ChannelsLast),
        |error| matches!(error, ArgumentError::Layout { argument: "grad_residuals", rank: 1, .. }),
    ),
    (
        "another device",
        |dz, kind| {
            let other = if kind == Kind::Gpu { Device::host() } else { virtual_gpus()[2].clone() };
            other.zeros(dz.dims()).unwrap()
        },
        |error| matches!(error, ArgumentError::WrongDevice { argument: "grad_residuals", rank: 1, .. }),
    ),
];

#[test]
fn targets_that_do_not_fit_are_refused_before_anything_is_written() {
    for kind in Kind::ALL {
        for epilogue in [Epilogue::Add, Epilogue::AddRelu] {
            let problem = Problem::plain(&[vec![2, 3, 3], vec![2, 3, 3], vec![1, 3, 3]], epilogue, 1101);
            let mut group = problem.group(kind.devices(3));
            let tensors = problem.tensors(&group);
            let saved = block_on(group.forward_train(tensors.inputs())).unwrap().saved;
            for (what, spoil, right) in SPOILS {
                let (mut dx, mut dz) = (like(&tensors.x), like(&tensors.x));
                dz[1] = spoil(&dz[1], kind);
                let targets =
                    GradTargets { grad_inputs: Some(&mut dx), grad_residuals: Some(&mut dz), ..GradTargets::default() };
                let result = block_on(group.backward_into(&saved, tensors.inputs(), &tensors.g, targets));
                let Err(Error::Argument(error)) = result else { panic!("{what}: {result:?}") };
                assert!(right(&error), "{kind:?}, {what}: {error:?}");
                assert!(error.to_string().contains("grad_residuals[1]"), "{error}");
                assert!(read(&dx).iter().flatten().all(|value| value.is_nan()), "{what}: grad_inputs were written");
                assert!(read(&dz[..1]).iter().flatten().all(|value| value.is_nan()), "{what}: written");
            }
            let mut short = like(&tensors.x[..2]);
            let targets = GradTargets { grad_residuals: Some(&mut short), ..GradTargets::default() };
            let error = block_on(group.backward_into(&saved, tensors.inputs(), &tensors.g, targets)).unwrap_err();
            let expected = ArgumentError::RankCount { argument: "grad_residuals", found: 2, expected: 3 };
            assert_eq!(error, Error::Argument(expected));
        }
    }
}
