//! What sums of integers refuse, and channels that are not finite.

use pollster::block_on;
use syncbn::error::{ArgumentError, ConfigError};
use syncbn::stats::LocalStatistics;
use syncbn::{
    Backward, BatchNormConfig, Device, Error, Forward, Layout, SyncBatchNorm, Tensor, joint,
};
use syncbn_testkit::Random;

fn layer(reproducible: bool) -> SyncBatchNorm {
    let config = BatchNormConfig::torch(2).with_reproducible(reproducible);
    SyncBatchNorm::new(config, [Device::host()]).expect("a layer")
}

fn is_not_wanted<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Argument(ArgumentError::NotWanted { .. })))
}

#[test]
fn steps_of_one_round_are_refused_and_rounds_of_a_layer_without() {
    let host = Device::host();
    let x = host.upload(&[2, 2], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    let bn = layer(true);
    assert!(is_not_wanted(block_on(bn.local_statistics(&x))));
    assert!(is_not_wanted(block_on(bn.synchronize(LocalStatistics::empty(2)))));
    assert!(is_not_wanted(layer(false).statistics_in_rounds()));
    assert!(is_not_wanted(layer(false).gradient_sums_in_rounds()));
    // Statistics that are not of integers have no ranges for backward.
    let ordinary = layer(false);
    let global = block_on(async {
        let local = ordinary.local_statistics(&x).await?;
        ordinary.synchronize(local).await
    });
    assert!(is_not_wanted(block_on(bn.normalize(&x, &global.unwrap()))));
    // Nothing of that has changed the layer.
    assert_eq!(bn.running_stats().unwrap().num_batches_tracked, 0);
}

#[test]
fn a_joint_call_of_both_kinds_is_refused_and_the_setting_is_fixed() {
    let host = Device::host();
    let x = host.upload(&[2, 2], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    let [exact, ordinary] = [layer(true), layer(false)];
    let calls = [(&exact, Forward::of(&x)), (&ordinary, Forward::of(&x))];
    let result = block_on(joint::forward_train(calls));
    let Err(Error::Joint { index: 1, error }) = result else { panic!("{result:?}") };
    assert!(matches!(*error, Error::Argument(ArgumentError::NotJoint { .. })), "{error}");
    let mut exact = exact;
    let result = exact.set_config(BatchNormConfig::torch(2));
    assert!(matches!(result, Err(Error::Config(ConfigError::Fixed { name: "reproducible", .. }))));
}

#[test]
fn a_joint_call_has_the_bits_of_single_ones() {
    let host = Device::host();
    let x = host.upload(&[3, 2], &[1.0f32, 2.0, 3.0, 4.5, -7.0, 0.1]).unwrap();
    let [a, b, single] = [layer(true), layer(true), layer(true)];
    let expected = block_on(single.forward_train(&x)).unwrap();
    let both =
        block_on(joint::forward_train([(&a, Forward::of(&x)), (&b, Forward::of(&x))])).unwrap();
    let expected_gradients =
        block_on(single.backward(&expected.saved, Backward::of(&x, &x))).unwrap();
    let calls = [&a, &b].into_iter().zip(&both);
    let calls = calls.map(|(layer, done)| (layer, &done.saved, Backward::of(&x, &x)));
    let gradients = block_on(joint::backward(calls.collect::<Vec<_>>())).unwrap();
    for (done, gradients) in both.iter().zip(&gradients) {
        assert_eq!(done.saved.statistics(), expected.saved.statistics());
        assert_eq!(block_on(done.output.to_vec()), block_on(expected.output.to_vec()));
        let [found, expected] = [gradients, &expected_gradients];
        assert_eq!(block_on(found.input.to_vec()), block_on(expected.input.to_vec()));
    }
}

#[test]
fn a_value_that_is_not_finite_is_of_its_channel_alone() {
    let host = Device::host();
    let bn = layer(true);
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let x = host.upload(&[3, 2], &[1.0, poison, 3.0, 4.5, -7.0, 0.1]).unwrap();
        let done = block_on(bn.forward_train(&x)).unwrap();
        let channels = done.saved.statistics().unwrap().channels();
        assert_eq!((channels[0].mean, channels[0].count), (-1.0, 3));
        assert!(channels[1].mean.is_nan() && channels[1].m2.is_nan());
        let y = block_on(done.output.to_vec()).unwrap();
        assert!(y.iter().skip(1).step_by(2).all(|y| y.is_nan()));
        assert!(y.iter().step_by(2).all(|y| y.is_finite()));
    }
    let x = host.upload(&[3, 2], &[1.0, 2.0, 3.0, 4.5, -7.0, 0.1]).unwrap();
    let g = host.upload(&[3, 2], &[f32::INFINITY, 2.0, 3.0, 4.5, -7.0, 0.1]).unwrap();
    let done = block_on(bn.forward_train(&x)).unwrap();
    let gradients = block_on(bn.backward(&done.saved, Backward::of(&x, &g))).unwrap();
    let dx = block_on(gradients.input.to_vec()).unwrap();
    assert!(dx.iter().step_by(2).all(|dx| dx.is_nan()));
    assert!(dx.iter().skip(1).step_by(2).all(|dx| dx.is_finite()));
}

/// What a step of channels last gives, as bits: y and grad_input by value, mean and m2 by channel.
fn columns(channels: usize, x: &[f32], g: &[f32]) -> [Vec<Vec<u64>>; 2] {
    let host = Device::host();
    let config = BatchNormConfig::torch(channels).with_reproducible(true);
    let bn = SyncBatchNorm::new(config, [host.clone()]).expect("a layer");
    let upload = |values: &[f32]| {
        let dims = [3, values.len() / channels / 3, channels];
        host.upload(&dims, values).unwrap().with_layout(Layout::ChannelsLast)
    };
    let [x, g] = [upload(x), upload(g)];
    let done = block_on(bn.forward_train(&x)).unwrap();
    let gradients = block_on(bn.backward(&done.saved, Backward::of(&x, &g))).unwrap();
    let by_channel = |tensor: &Tensor| -> Vec<Vec<u64>> {
        let values = block_on(tensor.to_vec()).unwrap();
        let of =
            |channel| values.iter().skip(channel).step_by(channels).map(|v| v.to_bits().into());
        (0..channels).map(|channel| of(channel).collect()).collect()
    };
    let mut y = by_channel(&done.output);
    for (y, of) in y.iter_mut().zip(done.saved.statistics().unwrap().channels()) {
        y.extend([of.mean.to_bits(), of.m2.to_bits()]);
    }
    [y, by_channel(&gradients.input)]
}

#[test]
fn a_column_that_is_not_finite_changes_no_other_column() {
    // Of widths that registers take, and of what is left beside them.
    for channels in [16, 35, 70] {
        let mut random = Random::new(channels as u64);
        let mut values =
            || -> Vec<f32> { (0..3 * 11 * channels).map(|_| random.normal() as f32).collect() };
        let [x, g] = [values(), values()];
        let expected = columns(channels, &x, &g);
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut spoilt_x = x.clone();
            let mut spoilt_g = g.clone();
            let [of_x, of_g] = [channels / 3, channels - 2];
            spoilt_x[5 * channels + of_x] = poison;
            spoilt_g[20 * channels + of_g] = poison;
            let found = columns(channels, &spoilt_x, &spoilt_g);
            for channel in 0..channels {
                let is_nan =
                    found.each_ref().map(|of| f32::from_bits(of[channel][0] as u32).is_nan());
                let spoilt = [channel == of_x, channel == of_x || channel == of_g];
                assert_eq!(is_nan, spoilt, "{poison}, channel {channel} of {channels}");
                for (of, is_spoilt) in [0, 1].into_iter().zip(spoilt) {
                    let is_same = found[of][channel] == expected[of][channel];
                    assert!(is_same != is_spoilt, "{poison}, channel {channel} of {channels}");
                }
            }
        }
    }
}
