//! f16: activations in half precision, parameters in either.

use burn::module::{Module, Param};
use burn::tensor::{DType, Distribution, Tensor, TensorData};
use syncbn::ProcessGroup;
use syncbn_burn::Rank;

use crate::common::{CHANNELS, DEADLINE, Norm, Problem, devices, on_threads, ours, ranks, values};

/// f16 has 11 bits: half an ulp is 2⁻¹¹ of a value. y and gradients are rounded once to f16, of
/// which this is half an ulp of the largest; all else is f32.
const HALF_ULP: f64 = 1.0 / 2048.0;

#[test]
fn two_ranks_compute_the_whole_batch_in_half_precision() {
    let devices = devices();
    let mut problem = Problem::random(&[3, 1], 5, 60);
    // What f16 holds exactly, so that the definition starts from the same numbers.
    for batch in &mut problem.ranks {
        for value in batch.x.iter_mut().chain(&mut batch.g) {
            *value = (*value * 64.0).round() / 64.0;
        }
    }
    for value in problem.gamma.iter_mut().chain(&mut problem.beta) {
        *value = (*value * 64.0).round() / 64.0;
    }
    let expected = problem.expected();
    for parameters in [DType::F32, DType::F16] {
        let found = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
            let device = rank.device().autodiff();
            let batch = &problem.ranks[index];
            let mut norm = ours(&device);
            let parameter = |values: &[f32]| {
                Param::from_tensor(Tensor::<1>::from_data(
                    TensorData::from(values),
                    (&device, parameters),
                ))
            };
            (norm.gamma, norm.beta) = (parameter(&problem.gamma), parameter(&problem.beta));
            let tensor = |values: &[f32]| {
                Tensor::<3>::from_data(
                    TensorData::new(values.to_vec(), batch.dims),
                    (&device, DType::F16),
                )
            };
            let x = tensor(&batch.x).require_grad();
            let y = norm.forward(x.clone());
            assert_eq!(y.dtype(), DType::F16);
            let gradients = (y.clone() * tensor(&batch.g)).sum().backward();
            let grad_x = x.grad(&gradients).unwrap();
            assert_eq!(grad_x.dtype(), DType::F16);
            let [gamma, _] = norm.affine();
            assert_eq!(gamma.dtype(), parameters);
            (values(y), values(grad_x), values(gamma.grad(&gradients).unwrap()), norm.running())
        });
        for (rank, ((y, grad_x, grad_gamma, running), expected)) in
            found.iter().zip(&expected).enumerate()
        {
            let pairs = [
                ("y", y, &expected.y),
                ("grad_x", grad_x, &expected.grad_x),
                ("grad_gamma", grad_gamma, &expected.grad_gamma),
                ("running_mean", &running[0], &expected.running[0]),
                ("running_var", &running[1], &expected.running[1]),
            ];
            for (name, found, expected) in pairs {
                let units =
                    crate::common::difference(found, expected) / f64::from(1 << 24) / HALF_ULP;
                println!("{parameters:?}, rank {rank}, {name}: {units:.2} half ulp of f16");
                // One rounding to f16, and the few to f32 before it.
                assert!(units <= 1.01, "{parameters:?}, rank {rank}, {name}: {units} half ulp");
            }
        }
    }
}

#[test]
fn evaluation_in_half_precision_takes_parameters_in_either() {
    let devices = devices();
    let (device, setup) = &devices[0];
    for has_rank in [false, true] {
        let _rank =
            has_rank.then(|| Rank::of_device(device, setup, ProcessGroup::single()).unwrap());
        for parameters in [DType::F32, DType::F16] {
            let vector = |value: f32| Tensor::<1>::full([CHANNELS], value, (device, parameters));
            let mut norm = ours(device);
            (norm.gamma, norm.beta) =
                (Param::from_tensor(vector(2.0)), Param::from_tensor(vector(0.5)));
            let x =
                Tensor::<3>::random([2, CHANNELS, 4], Distribution::Default, (device, DType::F16));
            let y = norm.valid().try_forward_add(x.clone(), x.clone()).unwrap();
            assert_eq!(y.dtype(), DType::F16);
            // Running statistics of a new layer: mean 0 and variance 1. Rounded to f16 at most
            // four times, from values below 4.
            for (x, y) in values(x).into_iter().zip(values(y)) {
                let expected = 2.0 * x / (1.0f32 + 1e-5).sqrt() + 0.5 + x;
                approx::assert_abs_diff_eq!(y, expected, epsilon = 8.0 / 2048.0);
            }
        }
    }
}
