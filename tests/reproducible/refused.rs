//! What sums of integers refuse, and channels that are not finite.

use pollster::block_on;
use syncbn::error::{ArgumentError, ConfigError};
use syncbn::stats::LocalStatistics;
use syncbn::{Backward, BatchNormConfig, Device, Error, Forward, SyncBatchNorm, joint};

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
    assert!(matches!(result, Err(Error::Config(ConfigError::Fixed { name: "reproducible" }))));
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
