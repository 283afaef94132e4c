//! An activation and a residual in the kernel that normalizes, against Burn's layer and Burn's
//! operations after it.

use burn::tensor::activation::{elu, gelu_approximate, hard_swish, leaky_relu, relu, relu6, silu};
use burn::tensor::{DType, Tensor, TensorData};
use syncbn_burn::{Activation, BatchNormConfig, SyncBatchNormConfig};

use crate::common::{
    CHANNELS, DEADLINE, DEFINITION, Norm, Problem, burns, devices, difference, on_threads, ranks,
    values,
};

const DIMS: [usize; 4] = [4, CHANNELS, 5, 3];

/// y and the gradients of x, the residual and gamma.
type Found = [Vec<f32>; 4];

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn close(found: &Found, expected: &Found, what: &str) {
    for (name, (found, expected)) in
        ["y", "grad_x", "grad_residual", "grad_gamma"].iter().zip(found.iter().zip(expected))
    {
        let worst = difference(found, &wide(expected));
        println!("{what}, {name}: {worst:.1} units");
        // As between Burn and this crate elsewhere: Burn sums 60 values in f32.
        assert!(worst <= DEFINITION + 60.0, "{what}, {name}: {worst}");
    }
}

/// `forward` of x and the residual, differentiated.
fn found(
    gamma: Tensor<1>,
    [x, residual, g]: [Tensor<4>; 3],
    forward: impl Fn(Tensor<4>, Tensor<4>) -> Tensor<4>,
) -> Found {
    let [x, residual] = [x, residual].map(|tensor| tensor.detach().require_grad());
    let y = forward(x.clone(), residual.clone());
    let gradients = (y.clone() * g).sum().backward();
    let of = |tensor: &Tensor<4>| tensor.grad(&gradients).map(values).unwrap_or_default();
    [values(y), of(&x), of(&residual), values(gamma.grad(&gradients).unwrap())]
}

#[test]
fn activations_and_residuals_are_what_burn_s_operations_make() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    let device = rank.device().autodiff();
    let [problem, other] =
        [100, 101].map(|seed| Problem::random(&[DIMS[0]], DIMS[2] * DIMS[3], seed));
    let tensor =
        |values: &[f32]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), DIMS), &device);
    let last = |t: Tensor<4>| t.permute([0, 2, 3, 1]).mul_scalar(1.0).permute([0, 3, 1, 2]);
    let first = [&problem.ranks[0].x, &other.ranks[0].x, &problem.ranks[0].g].map(|v| tensor(v));
    let [x, r, g] = first.clone();
    let layouts = [
        ("first", first),
        ("last", [x.clone(), r.clone(), g.clone()].map(last)),
        ("mixed", [last(x), r, g]),
    ];
    let theirs = burns(&device).set(&problem.gamma, &problem.beta);
    for activation in [
        Activation::None,
        Activation::Relu,
        Activation::LeakyRelu(0.125),
        Activation::Relu6,
        Activation::Silu,
        Activation::Hardswish,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Elu(0.75),
    ] {
        let own = BatchNormConfig::new(CHANNELS).with_activation(activation).init(&device);
        let own = own.set(&problem.gamma, &problem.beta);
        let after = |v: Tensor<4>| match activation {
            Activation::None => v,
            Activation::Relu => relu(v),
            Activation::LeakyRelu(slope) => leaky_relu(v, slope),
            Activation::Relu6 => relu6(v),
            Activation::Silu => silu(v),
            Activation::Hardswish => hard_swish(v),
            // Burn's gelu has the gradient of the form with tanh.
            Activation::Gelu => {
                (v.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * v * 0.5
            }
            Activation::GeluTanh => gelu_approximate(v),
            Activation::Elu(alpha) => elu(v, alpha),
        };
        for (layout, tensors) in &layouts {
            let what = format!("{activation:?}, {layout}");
            close(
                &found(own.gamma.val(), tensors.clone(), |x, _| own.forward(x)),
                &found(theirs.gamma.val(), tensors.clone(), |x, _| after(theirs.forward(x))),
                &what,
            );
            close(
                &found(own.gamma.val(), tensors.clone(), |x, r| own.forward_add(x, r)),
                &found(theirs.gamma.val(), tensors.clone(), |x, r| after(theirs.forward(x) + r)),
                &format!("{what}, residual"),
            );
        }
    }
}

#[test]
fn evaluation_ends_as_training_does_on_a_rank_and_off_it() {
    let devices = devices();
    let rank = ranks(&devices[..1], DEADLINE).remove(0);
    // Small enough and too large to be left to Burn's fusion.
    for dims in [DIMS, [4, CHANNELS, 120, 100]] {
        evaluation_ends_as_training_does(&rank, &devices[1].0, dims);
    }
}

fn evaluation_ends_as_training_does(
    rank: &syncbn_burn::Rank,
    elsewhere: &burn::tensor::Device,
    dims: [usize; 4],
) {
    use burn::module::Module;
    let problem = Problem::random(&[dims[0]], dims[2] * dims[3], 102);
    let of = |device: &burn::tensor::Device| {
        let config = BatchNormConfig::new(CHANNELS).with_activation(Activation::Relu);
        let norm = config.init(device).set(&problem.gamma, &problem.beta).valid();
        let data = |values: &[f32]| TensorData::new(values.to_vec(), dims);
        let x = Tensor::<4>::from_data(data(&problem.ranks[0].x), device);
        let r = Tensor::<4>::from_data(data(&problem.ranks[0].g), device);
        [values(norm.forward(x.clone())), values(norm.forward_add(x, r))]
    };
    // The other device belongs to no rank: Burn's operations evaluate.
    let [found, expected] = [of(&rank.device()), of(elsewhere)];
    for (found, expected) in found.iter().zip(&expected) {
        assert!(difference(found, &wide(expected)) <= DEFINITION);
        assert!(found.contains(&0.0) && found.iter().any(|&y| y > 0.0));
    }
}

#[test]
fn a_residual_of_two_ranks_in_half_precision_is_that_of_the_whole_batch() {
    let devices = devices();
    let mut whole = Problem::random(&[4], 15, 103);
    let batch = &mut whole.ranks[0];
    for value in batch.x.iter_mut().chain(&mut batch.g) {
        *value = (*value * 32.0).round() / 32.0;
    }
    let part = |values: &[f32], rows: std::ops::Range<usize>| {
        values[rows.start * CHANNELS * 15..rows.end * CHANNELS * 15].to_vec()
    };
    let run = |rank: &syncbn_burn::Rank, rows: std::ops::Range<usize>| {
        let device = rank.device().autodiff();
        let config = SyncBatchNormConfig::new(CHANNELS).with_activation(Activation::Relu);
        let norm = config.init(&device);
        let tensor = |values: &[f32]| {
            let data = TensorData::new(part(values, rows.clone()), [rows.len(), CHANNELS, 5, 3]);
            Tensor::<4>::from_data(data, (&device, DType::F16))
        };
        let x = tensor(&whole.ranks[0].x).require_grad();
        let r = tensor(&whole.ranks[0].g);
        let y = norm.forward_add(x.clone(), r.require_grad());
        assert_eq!(y.dtype(), DType::F16);
        let gradients = y.clone().sum().backward();
        (values(y), values(x.grad(&gradients).unwrap()))
    };
    let two = on_threads(ranks(&devices[..], DEADLINE), |index, rank| {
        run(&rank, [0..1, 1..4][index].clone())
    });
    let one = run(&ranks(&devices[..1], DEADLINE)[0], 0..4);
    let half_ulp = f64::from(1 << 24) / 2048.0;
    let y = [&two[0].0[..], &two[1].0[..]].concat();
    let grad = [&two[0].1[..], &two[1].1[..]].concat();
    // Each is rounded to f16 once; two that lie on either side of the middle are an ulp apart.
    assert!(difference(&y, &wide(&one.0)) <= 2.1 * half_ulp);
    assert!(difference(&grad, &wide(&one.1)) <= 2.1 * half_ulp);
}
