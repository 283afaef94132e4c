//! GPUs among the devices: the bits are those of the host, whichever device has which samples.
//!
//! The devices differ in how they go through memory: four values at a time, one at a time, and
//! window by window.

use std::sync::OnceLock;

use pollster::block_on;
use proptest::prelude::*;
use syncbn::config::Activation;
use syncbn::device::FastPaths;
use syncbn::low_level::Epilogue;
use syncbn::{DType, Device, Forward, SyncBatchNorm, joint};
use syncbn_testkit::Random;
use syncbn_testkit::reproducible::{Cut, FORMS, Whole, any_cut, findings, hosts, uncut, whole};
use syncbn_testkit::{adapter, kept, own_device};

use crate::groups::check_rounds;

/// Bytes of a binding that the largest of the batches (835,584 bytes) does not fit. Every tile
/// fits: one of 16,384 values, by fours, lies across 16 samples of that batch (786,432 bytes).
const FEW: u64 = 800 << 10;

/// All fast paths, none of them, and small bindings; opened once.
pub fn gpus() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let adapter = adapter();
        let (device, queue) =
            own_device(&adapter, |limits| limits.max_storage_buffer_binding_size = FEW);
        let devices = [
            block_on(Device::from_adapter(&adapter)),
            block_on(Device::from_adapter_with(&adapter, FastPaths::NONE)),
            Device::from_wgpu(device, queue),
        ];
        devices.map(|device| kept(device.expect("a device"))).into()
    })
}

/// For each rank of a cut any device, the host among them.
fn any_devices(cut: &Cut, seed: u64) -> Vec<Device> {
    let mut random = Random::new(seed ^ 0x9e37_79b9);
    let all: Vec<Device> = gpus().iter().cloned().chain([Device::host()]).collect();
    cut.iter().map(|_| all[random.below(all.len())].clone()).collect()
}

const TWO_SLOPES: [Epilogue; 4] =
    [Epilogue::NONE, Epilogue::RELU, Epilogue::leaky_relu(1.7), Epilogue::ADD_RELU];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_split_over_gpus_and_the_host_gives_the_same_bits(
        form in 0..FORMS.len(),
        last: bool,
        is_mixed: bool,
        epilogue in 0..TWO_SLOPES.len(),
        mask: bool,
        dtype in 0..3usize,
        seed: u64,
    ) {
        let epilogue = TWO_SLOPES[epilogue];
        let dtype = [DType::F32, DType::F16, DType::BF16][dtype];
        let mask = mask && epilogue.activates();
        let whole =
            Whole { is_mixed, mask, ..whole(form, last, epilogue).stored(dtype) };
        let expected = findings(&whole, &uncut(&whole), &hosts(1));
        let cut = any_cut(whole.samples(), seed);
        let found = findings(&whole, &cut, &any_devices(&cut, seed));
        let what = format!("form {form}, {epilogue:?}, {dtype:?}, {cut:?}");
        found.assert_same(&expected, false, &what);
    }

    #[test]
    fn any_split_over_gpus_of_one_kind_gives_the_same_bits_of_outputs_too(
        form in 0..FORMS.len(),
        last: bool,
        epilogue in 0..4usize,
        seed: u64,
    ) {
        // The derivative of a curve is rounded as the device does.
        let epilogue = [
            Epilogue::NONE,
            Epilogue::RELU,
            Epilogue::of(Activation::Silu),
            Epilogue::of(Activation::Gelu).after_residual(),
        ][epilogue];
        let whole = whole(form, last, epilogue);
        let gpu = |rank: usize| gpus()[rank % 2].clone();
        let expected = findings(&whole, &uncut(&whole), &[gpu(0)]);
        let cut = any_cut(whole.samples(), seed);
        let devices: Vec<Device> = (0..cut.len()).map(|_| gpu(0)).collect();
        let found = findings(&whole, &cut, &devices);
        found.assert_same(&expected, true, &format!("form {form}, {epilogue:?}, {cut:?}"));
        let devices: Vec<Device> = (0..cut.len()).map(gpu).collect();
        let found = findings(&whole, &cut, &devices);
        found.assert_same(&expected, true, &format!("form {form}, {epilogue:?}, {cut:?}, in turn"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn any_split_over_gpus_gives_the_same_bits_in_rounds(
        at_once in 1usize..6,
        last: bool,
        seed: u64,
    ) {
        let devices: Vec<Device> = gpus().iter().cloned().chain(hosts(1)).collect();
        check_rounds(&devices, at_once, last, seed);
    }
}

#[test]
fn sums_of_gpus_that_have_an_order_are_caught() {
    let ordered = Whole { reproducible: false, ..whole(0, false, Epilogue::NONE) };
    let samples = ordered.samples();
    let gpu = &gpus()[0];
    let expected = findings(&ordered, &uncut(&ordered), std::slice::from_ref(gpu));
    let cut: Cut = (0..3).map(|rank| (rank..samples).step_by(3).collect()).collect();
    let found = findings(&ordered, &cut, &vec![gpu.clone(); 3]);
    let caught = std::panic::catch_unwind(|| found.assert_same(&expected, false, "ordered"));
    assert!(caught.is_err(), "ordinary sums of another cut have the same bits");
}

/// Of two channels of the quad 4 … 7 only one takes its rounding errors too.
#[test]
fn a_form_has_a_channel_beyond_32_deviations_in_a_quad_of_others() {
    let whole = whole(8, false, Epilogue::NONE);
    let span = |channel: usize| {
        let of = |sample: &Vec<f32>| sample[channel * whole.len..][..whole.len].to_vec();
        let values: Vec<f64> = whole.x.iter().flat_map(of).map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let var = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        let ends = values.iter().fold([f64::MAX, f64::MIN], |[l, h], x| [l.min(*x), h.max(*x)]);
        (ends[1] - ends[0]) / 2.0 / var.sqrt()
    };
    assert!(span(6) > 40.0 && span(5) < 20.0, "{} and {}", span(6), span(5));
}

#[test]
fn padded_samples_have_the_bits_of_the_host() {
    let lengths = [1024, 1023, 0, 5, 1, 700];
    let epilogues =
        [Epilogue::NONE, Epilogue::RELU, Epilogue::ADD_RELU].map(|epilogue| (epilogue, false));
    let mut turn = 0;
    for (epilogue, mask) in epilogues.into_iter().chain([(Epilogue::ADD_RELU, true)]) {
        for dtype in [DType::F32, DType::F16] {
            for last in [false, true] {
                let whole = whole(8, last, epilogue).stored(dtype).padded(&lengths);
                let whole = Whole { mask, is_mixed: turn % 3 == 0, ..whole };
                let expected = findings(&whole, &uncut(&whole), &hosts(1));
                let cut = vec![vec![3, 0], vec![2], vec![1, 4, 5]];
                for devices in [gpus()[..].to_vec(), vec![gpus()[turn % 3].clone(); 3]] {
                    let found = findings(&whole, &cut, &devices);
                    let what = format!("{epilogue:?}, mask {mask}, {dtype:?}, last {last}");
                    found.assert_same(&expected, false, &what);
                }
                turn += 1;
            }
        }
    }
}

#[test]
fn many_tiles_of_a_channel_have_the_bits_of_the_host() {
    // Over 16 lanes and tiles of one block; then of tiles that are short.
    for (samples, channels, len, last) in
        [(3, 1, 200_001, false), (40, 3, 4_000, false), (70, 4, 999, true)]
    {
        let layout =
            if last { syncbn::Layout::ChannelsLast } else { syncbn::Layout::ChannelsFirst };
        let whole = Whole { layout, ..Whole::hard(samples, channels, len, 5) };
        let expected = findings(&whole, &uncut(&whole), &hosts(1));
        for gpu in &gpus()[..2] {
            let found = findings(&whole, &uncut(&whole), std::slice::from_ref(gpu));
            found.assert_same(&expected, false, &format!("{samples}, {channels}, {len}"));
        }
    }
}

#[test]
fn values_at_both_ends_of_the_range_alone_overflow_no_word() {
    // Half of this range is just below a power of two, so that integers are ±(2²⁹ − 32).
    let end = f32::from_bits(2f32.to_bits() - 1);
    for (low, last) in [(-end, false), (-end, true), (end, false)] {
        let layout =
            if last { syncbn::Layout::ChannelsLast } else { syncbn::Layout::ChannelsFirst };
        let mut whole = Whole { layout, ..Whole::hard(2, 4, 40_000, 5) };
        let values = whole.x.iter_mut().chain(&mut whole.grad_output).flatten();
        // All but one value at one end: then no sum is near 0.
        values.for_each(|value| *value = end);
        whole.x[0].iter_mut().step_by(40_000).for_each(|value| *value = -end);
        if low < 0.0 {
            whole.x.iter_mut().flatten().step_by(2).for_each(|value| *value = low);
        }
        let expected = findings(&whole, &uncut(&whole), &hosts(1));
        for gpu in &gpus()[..2] {
            let found = findings(&whole, &uncut(&whole), std::slice::from_ref(gpu));
            found.assert_same(&expected, false, &format!("{low}, channels last {last}"));
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_of_its_channel_alone_on_gpus_too() {
    for gpu in gpus() {
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let config = syncbn::BatchNormConfig::torch(4).with_reproducible(true);
            let bn = SyncBatchNorm::new(config, [gpu.clone()]).unwrap();
            let mut values: Vec<f32> = (0..20).map(|i| i as f32 * 0.7 - 3.0).collect();
            values[9] = poison;
            let x = gpu.upload(&[5, 4], &values).unwrap();
            let done = block_on(bn.forward_train(&x)).unwrap();
            let channels = done.saved.statistics().unwrap().channels();
            assert!(channels.iter().enumerate().all(|(c, of)| of.mean.is_nan() == (c == 1)));
            let finite = gpu.upload(&[5, 4], &[0.5f32; 20].map(|v| v + 1.0)).unwrap();
            let done = block_on(bn.forward_train(&finite)).unwrap();
            let gradients =
                block_on(bn.backward(&done.saved, syncbn::Backward::of(&finite, &x))).unwrap();
            let dx = block_on(gradients.input.to_vec()).unwrap();
            assert!(dx.iter().enumerate().all(|(i, dx)| dx.is_nan() == (i % 4 == 1)), "{dx:?}");
        }
    }
}

#[test]
fn a_joint_call_over_gpus_has_the_bits_of_the_host() {
    let config = syncbn::BatchNormConfig::torch(2).with_reproducible(true);
    let values = [1.0f32, 2.0, 3.0, 4.5, -7.0, 0.1];
    let statistics = |device: &Device| {
        let layer = || SyncBatchNorm::new(config.clone(), [device.clone()]).unwrap();
        let [a, b] = [layer(), layer()];
        let x = device.upload(&[3, 2], &values).unwrap();
        let z = device.upload(&[2, 2], &values[..4]).unwrap();
        let both = [(&a, Forward::of(&x)), (&b, Forward::of(&z))];
        let done = block_on(joint::forward_train(both)).unwrap();
        done.iter().map(|done| done.saved.statistics().unwrap().clone()).collect::<Vec<_>>()
    };
    let expected = statistics(&Device::host());
    for gpu in gpus() {
        assert_eq!(statistics(gpu), expected);
    }
}

#[test]
fn evaluation_with_the_batch_and_recomputation_have_the_bits_of_any_split() {
    let whole = whole(1, false, Epilogue::NONE);
    let samples = whole.samples();
    let cuts = [uncut(&whole), (0..3).map(|rank| (rank..samples).step_by(3).collect()).collect()];
    let found = cuts.map(|cut: Cut| {
        let devices: Vec<Device> = (0..cut.len()).map(|rank| gpus()[rank % 2].clone()).collect();
        let config = whole.config().with_use_batch_statistics(Some(true));
        let layer = SyncBatchNorm::new(config, devices.clone()).expect("a layer");
        let ranks = cut.iter().zip(&devices);
        let x: Vec<_> = ranks.map(|(rank, device)| whole.upload_x(device, rank)).collect();
        let evaluated = block_on(layer.forward_eval(&x)).expect("evaluation").output;
        let trained = block_on(layer.forward_train(&x)).expect("forward");
        let running = layer.running_stats();
        let again = block_on(layer.forward_train(Forward::of(&x).untracked())).expect("again");
        assert_eq!(layer.running_stats(), running, "a recomputation has moved them");
        assert_eq!(again.saved.statistics(), trained.saved.statistics());
        [evaluated, trained.output, again.output].map(|y| whole.by_sample(&y, &cut))
    });
    let [first, ..] = &found[0];
    assert!(found.iter().flatten().all(|y| y == first), "y differs");
}
