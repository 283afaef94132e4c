//! `BatchNorm`: sums of integers merge on the device, with the bits that the host makes of them.

use pollster::block_on;
use proptest::prelude::*;
use syncbn::low_level::Epilogue;
use syncbn::{Backward, BatchNorm, BatchNormConfig, DType, Device, Forward, SyncBatchNorm, Tensor};

use crate::batch::{Cut, Whole, bits, findings_of, shared};
use crate::cuts::{FORMS, any_cut, uncut, whole};
use crate::gpus::gpus;

/// What a `BatchNorm` makes of a batch, as bits.
#[derive(Debug, PartialEq)]
struct Found {
    running: [Vec<u32>; 2],
    mean_and_inv_std: [Vec<u32>; 2],
    parameters: [Vec<u32>; 2],
    y: Vec<Vec<u32>>,
    grad_input: Vec<Vec<u32>>,
}

fn values(tensor: &Tensor) -> Vec<f32> {
    block_on(tensor.to_vec()).expect("values")
}

/// A step of a `BatchNorm`, all ranks on one device.
fn on_device(config: &BatchNormConfig, whole: &Whole, cut: &Cut, device: &Device) -> Found {
    let layer = BatchNorm::new(config.clone(), device).expect("a layer");
    let x: Vec<Tensor> = cut.iter().map(|rank| whole.upload_x(device, rank)).collect();
    let grad_output: Vec<Tensor> =
        cut.iter().map(|rank| whole.upload_grad_output(device, rank)).collect();
    let lists = whole.lists(cut);
    let mut forward = Forward::of(&x);
    if let Some(lists) = &lists {
        forward = forward.lengths(lists);
    }
    let backward = Backward::of(&x, &grad_output);
    let (forward, backward) = if whole.epilogue.residual {
        (forward.residual(&x), backward.residual(&x))
    } else {
        (forward, backward)
    };
    let forward = layer.forward_train(forward).expect("forward");
    let gradients = layer.backward(&forward.saved, backward).expect("backward");
    let running = block_on(layer.running_stats()).expect("a read").expect("running statistics");
    let [mean, inv_std] = forward.saved.mean_and_inv_std(0).expect("statistics of the batch");
    Found {
        running: [bits(&running.mean), bits(&running.var)],
        mean_and_inv_std: [mean, inv_std].map(|tensor| bits(&values(tensor))),
        parameters: [gradients.weight, gradients.bias].map(|tensors| shared(&tensors.unwrap())),
        y: whole.by_sample(&forward.output, cut),
        grad_input: whole.by_sample(&gradients.input, cut),
    }
}

/// The same by a `SyncBatchNorm` on one device, the host or a GPU.
fn on_host(config: &BatchNormConfig, whole: &Whole, device: &Device) -> Found {
    let layer = SyncBatchNorm::new(config.clone(), [device.clone()]).expect("a layer");
    let found = findings_of(&layer, whole, &uncut(whole));
    let of_channel = |&[mean, m2]: &[u64; 2]| {
        let var = f64::from_bits(m2) / found.count as f64 + config.eps;
        let inv_std = if var == 0.0 { 0.0 } else { 1.0 / var.sqrt() };
        [f64::from_bits(mean) as f32, (inv_std as f32).min(f32::MAX)].map(f32::to_bits)
    };
    let channels: Vec<[u32; 2]> = found.moments.iter().map(of_channel).collect();
    let mean_and_inv_std = [0, 1].map(|at| channels.iter().map(|of| of[at]).collect());
    let [running, parameters] = [found.running, found.parameters];
    Found { running, mean_and_inv_std, parameters, y: found.y, grad_input: found.grad_input }
}

/// Refuses what differs from what a `SyncBatchNorm` has made; y and grad_input where it had a
/// device of the same kind.
fn assert_same(found: &Found, expected: &Found, alike: bool, what: &str) {
    let named = |of: &Found| {
        [
            ("running mean", of.running[0].clone()),
            ("running variance", of.running[1].clone()),
            ("mean", of.mean_and_inv_std[0].clone()),
            ("inv_std", of.mean_and_inv_std[1].clone()),
            ("gradient of the weight", of.parameters[0].clone()),
            ("gradient of the bias", of.parameters[1].clone()),
        ]
    };
    for ((name, found), (_, expected)) in named(found).into_iter().zip(named(expected)) {
        for (channel, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let [found, expected] = [found, expected].map(|of| f32::from_bits(*of));
            let is_same =
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(is_same, "{what}: {name} of {channel} is {found:e}, expected {expected:e}");
        }
    }
    if alike {
        assert!(found.y == expected.y, "{what}: y");
        assert!(found.grad_input == expected.grad_input, "{what}: grad_input");
    }
}

const EPILOGUES: [Epilogue; 4] =
    [Epilogue::NONE, Epilogue::RELU, Epilogue::leaky_relu(1.7), Epilogue::ADD_RELU];

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_split_on_one_gpu_has_the_bits_of_the_host(
        form in 0..FORMS.len(),
        last: bool,
        is_mixed: bool,
        epilogue in 0..EPILOGUES.len(),
        dtype in 0..3usize,
        eps in 0..2usize,
        seed: u64,
    ) {
        let epilogue = EPILOGUES[epilogue];
        let dtype = [DType::F32, DType::F16, DType::BF16][dtype];
        let mask = seed % 2 == 0 && epilogue.activates();
        let whole = Whole { is_mixed, mask, ..whole(form, last, epilogue).stored(dtype) };
        let config = whole.config().with_eps([0.0, 1e-5][eps]);
        let cut = any_cut(whole.samples(), seed);
        let gpu = &gpus()[(seed / 2 % 3) as usize];
        let found = on_device(&config, &whole, &cut, gpu);
        let what = format!("form {form}, {epilogue:?}, {dtype:?}, {cut:?}, {gpu}");
        assert_same(&found, &on_host(&config, &whole, &Device::host()), false, &what);
        assert_same(&found, &on_host(&config, &whole, &gpus()[0]), true, &what);
    }
}
