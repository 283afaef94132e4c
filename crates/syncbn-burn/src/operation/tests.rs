//! The operation on Burn's backends by name, behind queued work. Tensors of the public interface
//! choose theirs when Burn is compiled: with the feature `fusion` they lie on the fused one, and
//! the other is seen here alone.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Scalar, Wgpu};
use burn::tensor::{Tensor, TensorData};
use burn_cubecl::{CubeBackend, CubeDevice};
use pollster::block_on;
use syncbn::ProcessGroup;
use syncbn::config::Activation;
use syncbn_reference::{Affine, RankBatch, backward_train, forward_train};

use super::{BatchNormOps, Done, InMemory};
use crate::Rank;
use crate::layer::{Layers, Way};
use crate::pass::{Inputs, Output};

const DIMS: [usize; 3] = [3, 2, 5];
const GAMMA: [f32; 2] = [1.5, -0.75];
const BETA: [f32; 2] = [0.5, 2.0];
const EPSILON: f64 = 1e-5;

/// Values that f32 holds exactly, and their halves too.
fn values(seed: usize) -> Vec<f32> {
    (0..DIMS.iter().product())
        .map(|index: usize| ((index * 7 + seed) % 23) as f32 / 4.0 - 2.5)
        .collect()
}

/// y, and the gradients of x, gamma and beta for Σ y·g, of inputs that are twice what was stored.
fn step<B: InMemory + Backend<Device = CubeDevice>>(
    layers: &Arc<Layers>,
    device: &CubeDevice,
) -> [Vec<f32>; 4] {
    let data = |values: Vec<f32>, dims: &[usize]| {
        B::float_from_data(TensorData::new(values, dims.to_vec()), device)
    };
    let doubled = |values: Vec<f32>| {
        let halves = values.into_iter().map(|value| value / 2.0).collect();
        B::float_mul_scalar(data(halves, &DIMS), Scalar::from(2.0))
    };
    let leaf =
        |tensor| Autodiff::<B>::float_set_require_grad(Autodiff::<B>::from_inner(tensor), true);
    let inner = |tensor: &FloatTensor<Autodiff<B>>| Autodiff::<B>::inner(tensor.clone());
    let leaves =
        [doubled(values(1)), data(GAMMA.to_vec(), &[2]), data(BETA.to_vec(), &[2])].map(leaf);

    let [x, gamma, beta] = leaves.each_ref().map(|tensor| B::into_cube(inner(tensor)));
    let way = Way {
        activation: Activation::None,
        residual: false,
        epsilon: EPSILON,
        momentum: 0.1,
        of_group: false,
        joint: false,
    };
    let rank = layers.rank_on(device).unwrap();
    let layer = layers.on(&rank, way).unwrap();
    let inputs = Inputs { x: vec![x], residual: None, parameters: [gamma, beta], running: None };
    let Output { mut y, saved, .. } = layer.forward(&rank, inputs, way, false).unwrap();
    let [x, gamma, beta] = leaves.clone();
    let residual = leaves[2].clone();
    let done = Done::forward(y.remove(0), saved, false);
    let y = <Autodiff<B> as BatchNormOps>::batch_norm_output(x, gamma, beta, residual, done);
    let g = Autodiff::<B>::from_inner(doubled(values(2)));
    let loss = Autodiff::<B>::float_sum(Autodiff::<B>::float_mul(y.clone(), g));
    let gradients = Autodiff::<B>::backward(loss);

    let read = |tensor| block_on(B::float_into_data(tensor)).unwrap().try_to_vec::<f32>().unwrap();
    let [x, gamma, beta] =
        leaves.map(|tensor| read(Autodiff::<B>::grad(&tensor, &gradients).unwrap()));
    [read(inner(&y)), x, gamma, beta]
}

#[test]
fn the_operation_is_the_definition_on_the_fused_backend_and_on_the_plain_one() {
    let adapters = block_on(syncbn::Device::adapters());
    let rank = Rank::open(adapters.last().unwrap(), ProcessGroup::single()).unwrap();
    let of_rank = Tensor::<1>::zeros([1], &rank.device()).try_into_primitive::<Wgpu>().unwrap();
    let device = Wgpu::into_cube(of_rank).device;
    let layers = Arc::new(Layers::new(DIMS[1], None, &rank.device()).unwrap());

    let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
    let [x, g] = [1, 2].map(|seed| wide(&values(seed)));
    let [gamma, beta] = [wide(&GAMMA), wide(&BETA)];
    let [x, g] = [&x, &g].map(|values| [RankBatch { dims: &DIMS, values }]);
    let forward =
        forward_train(&x, Affine { weight: Some(&gamma), bias: Some(&beta) }, EPSILON).unwrap();
    let backward = backward_train(&x, &g, Some(&gamma), EPSILON).unwrap();
    let expected = [
        &forward.outputs[0],
        &backward.grad_inputs[0],
        &backward.grad_weights[0],
        &backward.grad_biases[0],
    ];

    for (backend, found) in [
        ("plain", step::<CubeBackend>(&layers, &device)),
        ("of tensors", step::<Wgpu>(&layers, &device)),
    ] {
        for ((name, found), expected) in
            ["y", "grad_x", "grad_gamma", "grad_beta"].iter().zip(&found).zip(expected)
        {
            // 16 units of half an ulp of the largest, as in the tests of the module.
            let scale = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
            let off = found
                .iter()
                .zip(expected)
                .map(|(&found, expected)| (f64::from(found) - expected).abs());
            let worst = off.fold(0.0, f64::max) / scale * f64::from(1 << 24);
            println!("{backend}, {name}: {worst:.1} units");
            assert!(
                found.len() == expected.len() && worst <= 16.0,
                "{backend}, {name}: {found:?}, not {expected:?}"
            );
        }
    }
}
