//! `BatchNorm`: sums of integers merge on the device, with the bits that the host makes of them.

use pollster::block_on;
use proptest::prelude::*;
use syncbn::config::{AffineGradient, Momentum, RunningVariance};
use syncbn::error::ArgumentError;
use syncbn::low_level::Epilogue;
use syncbn::{
    Backward, BatchNorm, DType, Device, DoubleBackward, Error, Forward, Tensor, Workspace,
};
use syncbn_testkit::reproducible::resident::{assert_same, on_device, on_host};
use syncbn_testkit::reproducible::{Cut, FORMS, Whole, any_cut, bits_of, uncut, whole};

use crate::gpus::gpus;

const EPILOGUES: [Epilogue; 4] =
    [Epilogue::NONE, Epilogue::RELU, Epilogue::leaky_relu(1.7), Epilogue::ADD_RELU];

/// One step of training.
const STEP: (bool, usize) = (true, 1);

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

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
        let mask = seed.is_multiple_of(2) && epilogue.activates();
        let whole = Whole { is_mixed, mask, ..whole(form, last, epilogue).stored(dtype) };
        let config = whole.config().with_eps([0.0, 1e-5][eps]);
        let cut = any_cut(whole.samples(), seed);
        let gpu = &gpus()[(seed / 2 % 3) as usize];
        let found = on_device(&config, (&whole, &cut), gpu, STEP);
        let what = format!("form {form}, {epilogue:?}, {dtype:?}, {cut:?}, {gpu}");
        // One rank has gradients of its own that are those of the group.
        let host = on_host(&config, (&whole, &cut), &Device::host(), STEP);
        assert_same(&found, &host, false, &what);
        let alike = on_host(&config, (&whole, &uncut(&whole)), &gpus()[0], STEP);
        prop_assert!(found.y == alike.y && found.grad_input == alike.grad_input, "{}", what);
    }
}

/// Three ranks, one of them without a sample.
fn three(whole: &Whole) -> Cut {
    let half = whole.samples() / 2;
    vec![(0..half).collect(), Vec::new(), (half..whole.samples()).rev().collect()]
}

#[test]
fn settings_of_a_layer_have_the_bits_of_the_host() {
    let whole = whole(0, false, Epilogue::RELU);
    let base = whole.config();
    let configs = [
        base.clone().with_affine_gradient(AffineGradient::Local).with_eps(1e-3),
        base.clone().with_affine_gradient(AffineGradient::GroupMean),
        base.clone().with_momentum(Momentum::Cumulative),
        base.clone()
            .with_momentum(Momentum::Decay(0.75))
            .with_running_variance(RunningVariance::Biased),
        base.clone().with_momentum(Momentum::NewWeight(1.0)),
        base.clone().with_momentum(Momentum::NewWeight(0.0)),
    ];
    let cut = three(&whole);
    for config in configs {
        let found = on_device(&config, (&whole, &cut), &gpus()[0], (true, 3));
        let expected = on_host(&config, (&whole, &cut), &gpus()[0], (true, 3));
        assert_same(&found, &expected, true, &format!("{config:?}"));
        assert_eq!(found.running[2], [3]);
    }
    // In evaluation every rank has statistics of its own.
    let config = base.with_track_running_stats(false);
    let found = on_device(&config, (&whole, &cut), &gpus()[0], (false, 1));
    let expected = on_host(&config, (&whole, &cut), &gpus()[0], (false, 1));
    assert_same(&found, &expected, true, "evaluation");
}

#[test]
fn padded_samples_have_the_bits_of_the_host() {
    for last in [false, true] {
        let base = whole(1, last, Epilogue::RELU);
        let lengths: Vec<u32> = (0..base.samples()).map(|at| (at * 7 % 37) as u32).collect();
        let whole = base.padded(&lengths);
        let config = whole.config();
        let cut = three(&whole);
        let found = on_device(&config, (&whole, &cut), &gpus()[0], STEP);
        let expected = on_host(&config, (&whole, &cut), &gpus()[0], STEP);
        assert_same(&found, &expected, true, &format!("channels last: {last}"));
    }
}

#[test]
fn a_value_that_is_not_finite_is_of_its_channel_alone_on_one_gpu_too() {
    let mut whole = whole(0, false, Epilogue::NONE);
    let len = whole.len;
    for (channel, poison) in [(1, f32::NAN), (3, f32::INFINITY), (6, f32::NEG_INFINITY)] {
        whole.x[4][channel * len + 5] = poison;
        whole.grad_output[7][(channel + 1) * len] = poison;
    }
    let config = whole.config();
    let cut = three(&whole);
    let found = on_device(&config, (&whole, &cut), &gpus()[0], STEP);
    let expected = on_host(&config, (&whole, &cut), &gpus()[0], STEP);
    // The bits of a NaN are the device's choice.
    assert_same(&found, &expected, false, "not finite");
    let is_nan = |of: &[Vec<u32>], sample: usize, channel: usize| {
        f32::from_bits(of[sample][channel * len]).is_nan()
    };
    for channel in 0..whole.channels {
        for (name, of, nan) in
            [("y", &found.y, [1, 3, 6].as_slice()), ("dx", &found.grad_input, &[1, 2, 3, 4, 6, 7])]
        {
            assert_eq!(is_nan(of, 0, channel), nan.contains(&channel), "{name} of {channel}");
        }
    }
}

#[test]
fn passes_in_an_encoder_have_the_bits_of_passes_by_themselves() {
    let whole = whole(6, true, Epilogue::RELU);
    let config = whole.config();
    let cut = uncut(&whole);
    let device = &gpus()[0];
    let expected = on_device(&config, (&whole, &cut), device, STEP);
    let layer = BatchNorm::new(config, device).expect("a layer");
    let mut workspace = Workspace::new(device);
    let [x, g] = [whole.upload_x(device, &cut[0]), whole.upload_grad_output(device, &cut[0])];
    let channels = [whole.channels];
    let mut running = [0.0f32, 1.0]
        .map(|of| device.upload(&channels, &vec![of; whole.channels]).expect("an upload"));
    let mut next = [0; 2].map(|_| device.zeros(&channels).expect("memory"));
    let (raw, queue) = device.wgpu().expect("a GPU");
    let mut encoder = raw.create_command_encoder(&Default::default());
    let [mean, var] = &mut running;
    let [next_mean, next_var] = &mut next;
    let request = Forward::of(&x).running_stats(mean, var);
    let request = request.write_running_stats_to(next_mean, next_var);
    let forward = layer.forward_train(request.encode(&mut encoder, &mut workspace)).unwrap();
    let request = Backward::of(&x, &g).encode(&mut encoder, &mut workspace);
    let gradients = layer.backward(&forward.saved, request).unwrap();
    queue.submit([encoder.finish()]);
    let values = |tensor: &Tensor| bits_of(&block_on(tensor.to_vec()).unwrap());
    assert!(whole.by_sample(&[forward.output], &cut) == expected.y, "y");
    assert!(whole.by_sample(&[gradients.input], &cut) == expected.grad_input, "grad_input");
    let parameters = [gradients.weight, gradients.bias].map(|tensor| values(&tensor.unwrap()));
    assert_eq!(parameters.as_slice(), expected.parameters);
    // The vectors began as the layer's own do.
    assert_eq!(next.each_ref().map(values).as_slice(), &expected.running[..2]);
}

#[test]
fn double_backward_is_refused() {
    let whole = whole(3, false, Epilogue::NONE);
    let device = &gpus()[0];
    let layer = BatchNorm::new(whole.config(), device).expect("a layer");
    layer.prepare(&[9, 11, 5], whole.layout, DType::F32).expect("kernels");
    let [x, g] = [whole.upload_x(device, &[0, 1]), whole.upload_grad_output(device, &[0, 1])];
    let forward = layer.forward_train(&x).expect("forward");
    let request = DoubleBackward::of(&x, &g).input_cotangent(&g);
    let result = layer.double_backward(&forward.saved, request);
    assert!(matches!(result, Err(Error::Argument(ArgumentError::NotWanted { .. }))), "{result:?}");
    // A software driver must not compute while its process ends.
    block_on(device.wait()).expect("the device");
}

#[test]
fn sums_of_one_gpu_that_have_an_order_are_caught() {
    let whole = whole(0, false, Epilogue::NONE);
    let config = whole.config().with_reproducible(false);
    let [one, three] = [uncut(&whole), three(&whole)]
        .map(|cut| on_device(&config, (&whole, &cut), &gpus()[0], STEP).running);
    assert!(one != three, "ordinary sums of another cut have the same bits");
}
