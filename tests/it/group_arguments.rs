//! Arguments that do not fit: a typed error that names the argument and both values, and a layer
//! that is as before.
//!
//! `group_arguments/slices.rs` holds what concerns slices of buffers that the test allocates
//! itself, `group_arguments/words.rs` what errors say.

mod slices;
mod words;

use crate::common;

use common::*;
use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    BatchNormConfig, Device, Error, Forward, SyncBatchNorm, Tensor,
    error::{ArgumentError, ConfigError, LimitError, ShapeError},
};

const CHANNELS: usize = 3;

/// A layer that has taken one step, so that there is something to lose.
fn trained(devices: Vec<Device>) -> SyncBatchNorm {
    let mut layer = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), devices).unwrap();
    let mut random = Random::new(50);
    Parameters::random(CHANNELS, &mut random).set(&mut layer);
    step(&mut layer, &mut random);
    layer
}

/// One step on random batches; the bits of y.
fn step(layer: &mut SyncBatchNorm, random: &mut Random) -> Vec<Vec<u32>> {
    let batches: Vec<Batch> =
        (0..layer.devices().len()).map(|_| Batch::random(&[2, CHANNELS, 5], random)).collect();
    bits(&read(&block_on(layer.forward_train(&upload(layer, &batches))).unwrap().output))
}

/// The error of training on these inputs. Evaluation fails alike, and neither changes the layer.
fn refused(layer: &mut SyncBatchNorm, inputs: &[Tensor]) -> Error {
    let before = layer.running_stats();
    let error = block_on(layer.forward_train(inputs)).unwrap_err();
    assert_eq!(block_on(layer.forward_eval(inputs)).unwrap_err(), error);
    assert_eq!(layer.running_stats(), before);
    assert_works(layer);
    error
}

/// The same for inputs that fit and outputs that do not.
fn refused_into(layer: &mut SyncBatchNorm, inputs: &[Tensor], outputs: &mut [Tensor]) -> Error {
    let before = layer.running_stats();
    let error =
        block_on(layer.forward_train(Forward::of(inputs).write_to(&mut *outputs))).unwrap_err();
    assert_eq!(
        block_on(layer.forward_eval(Forward::of(inputs).write_to(outputs))).unwrap_err(),
        error
    );
    assert_eq!(layer.running_stats(), before);
    assert_works(layer);
    error
}

/// A layer that has just failed gives the bits of one that never did.
fn assert_works(layer: &mut SyncBatchNorm) {
    let mut fresh = trained(layer.devices().to_vec());
    assert_eq!(layer.running_stats(), fresh.running_stats());
    let before = layer.running_stats().unwrap();
    assert_eq!(step(layer, &mut Random::new(51)), step(&mut fresh, &mut Random::new(51)));
    assert_eq!(layer.running_stats(), fresh.running_stats());
    layer.set_running_stats(before).unwrap();
}

fn assert_says(error: &Error, words: &[&str]) {
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

fn zeros(layer: &SyncBatchNorm, dims: &[usize]) -> Vec<Tensor> {
    layer.devices().iter().map(|device| device.zeros(dims).unwrap()).collect()
}

#[test]
fn another_number_of_channels_is_refused() {
    for kind in Kind::ALL {
        let mut layer = trained(kind.devices(2));
        let mut inputs = zeros(&layer, &[2, CHANNELS, 4]);
        inputs[1] = layer.devices()[1].zeros(&[2, 4, 4]).unwrap();
        let error = refused(&mut layer, &inputs);
        let expected = ArgumentError::Channels {
            argument: "x",
            rank: Some(1),
            dims: vec![2, 4, 4],
            found: 4,
            expected: CHANNELS,
        };
        assert_eq!(error, Error::Argument(expected));
        assert_says(&error, &["x[1]", "4 channels", "[2, 4, 4]", "num_features = 3"]);
    }
}

#[test]
fn another_number_of_tensors_than_ranks_is_refused() {
    for kind in Kind::ALL {
        let mut layer = trained(kind.devices(2));
        let mut inputs = zeros(&layer, &[2, CHANNELS, 4]);
        for found in [0, 1] {
            let error = refused(&mut layer, &inputs[..found]);
            assert_eq!(
                error,
                Error::Argument(ArgumentError::RankCount { argument: "x", found, expected: 2 })
            );
            let mut outputs = zeros(&layer, &[2, CHANNELS, 4]);
            let error = refused_into(&mut layer, &inputs, &mut outputs[..found]);
            assert_eq!(
                error,
                Error::Argument(ArgumentError::RankCount {
                    argument: "output",
                    found,
                    expected: 2
                })
            );
            assert_says(&error, &["output", &format!("has {found} tensor"), "expected 2"]);
        }
        inputs.push(layer.devices()[0].zeros(&[2, CHANNELS, 4]).unwrap());
        let error = refused(&mut layer, &inputs);
        assert_says(&error, &["x has 3 tensor(s), expected 2: one per rank"]);
    }
}

#[test]
fn dimensions_that_no_activation_has_are_refused() {
    for kind in Kind::ALL {
        let mut layer = trained(kind.devices(2));
        let cases = [
            (vec![7], ShapeError::Dimensions { dims: vec![7] }, "[7]"),
            (vec![], ShapeError::Dimensions { dims: vec![] }, "[]"),
            (vec![2, 0, 3], ShapeError::NoChannels { dims: vec![2, 0, 3], axis: 1 }, "axis 1"),
        ];
        for (dims, source, word) in cases {
            let mut inputs = zeros(&layer, &[2, CHANNELS, 4]);
            inputs[1] = layer.devices()[1].zeros(&dims).unwrap();
            let error = refused(&mut layer, &inputs);
            assert_eq!(
                error,
                Error::Argument(ArgumentError::Shape {
                    argument: "x",
                    rank: Some(1),
                    shape: source
                })
            );
            assert_says(&error, &["x[1]", word, "at least"]);
        }
    }
}

#[test]
fn a_tensor_of_another_device_is_refused() {
    let [a, b] = [0, 1].map(|i| virtual_gpus()[i].clone());
    let host = Device::host();
    for (devices, wrong) in [
        ([a.clone(), host.clone()], [host.clone(), host.clone()]),
        ([a.clone(), host.clone()], [a.clone(), a.clone()]),
        ([a.clone(), b.clone()], [b.clone(), b.clone()]),
        ([a.clone(), b.clone()], [a.clone(), a.clone()]),
    ] {
        let rank = usize::from(devices[0] == wrong[0]);
        let mut layer = trained(devices.to_vec());
        let misplaced = || wrong.clone().map(|device| device.zeros(&[2, CHANNELS, 4]).unwrap());
        let error = refused(&mut layer, &misplaced());
        let found = wrong[rank].to_string();
        let expected = devices[rank].to_string();
        let is_wrong_device = |error: &Error, name| match error {
            Error::Argument(ArgumentError::WrongDevice { argument, rank: at, .. }) => {
                (*argument, *at) == (name, Some(rank))
            }
            _ => false,
        };
        assert!(is_wrong_device(&error, "x"), "{error:?}");
        assert_says(&error, &[&format!("x[{rank}]"), &found, &expected]);
        let inputs = zeros(&layer, &[2, CHANNELS, 4]);
        let error = refused_into(&mut layer, &inputs, &mut misplaced());
        assert!(is_wrong_device(&error, "output"), "{error:?}");
        assert_says(&error, &[&format!("output[{rank}]"), &found, &expected]);
    }
}

#[test]
fn a_tensor_of_another_virtual_device_of_one_adapter_is_refused_in_words_that_tell_the_two_apart() {
    let mut layer = trained(virtual_gpus()[..2].to_vec());
    let inputs =
        [1, 0].map(|device: usize| virtual_gpus()[device].zeros(&[2, CHANNELS, 4]).unwrap());
    let Error::Argument(ArgumentError::WrongDevice { found, expected, .. }) =
        refused(&mut layer, &inputs)
    else {
        panic!("another error")
    };
    assert_ne!(found, expected);
}

#[test]
fn outputs_of_other_dims_than_their_inputs_are_refused() {
    for kind in Kind::ALL {
        let mut layer = trained(kind.devices(2));
        let inputs = zeros(&layer, &[2, CHANNELS, 4]);
        // As many values in another shape, fewer, and none.
        for dims in [
            vec![2, CHANNELS, 2, 2],
            vec![4, CHANNELS, 2],
            vec![2, CHANNELS, 3],
            vec![0, CHANNELS, 4],
        ] {
            let mut outputs = zeros(&layer, &[2, CHANNELS, 4]);
            outputs[1] = layer.devices()[1].zeros(&dims).unwrap();
            let error = refused_into(&mut layer, &inputs, &mut outputs);
            let found = dims.clone();
            let expected = vec![2, CHANNELS, 4];
            let dims_error =
                ArgumentError::Dims { argument: "output", rank: Some(1), found, expected };
            assert_eq!(error, Error::Argument(dims_error));
            assert_says(&error, &["output[1]", &format!("{dims:?}"), "[2, 3, 4]"]);
        }
    }
}

#[test]
fn a_tensor_larger_than_the_largest_buffer_is_refused_with_both_sizes() {
    let (device, queue) = own_device(&adapter(), |_| {});
    let device = Device::from_wgpu(device, queue).unwrap();
    let dims = vec![1, 1, (256 << 18) + 1];
    let found_bytes = (256 << 20) + 4;
    let allowed_bytes = 256 << 20;
    let expected =
        Error::Limit(LimitError::Buffer { dims: dims.clone(), found_bytes, allowed_bytes });
    assert_eq!(device.zeros(&dims).unwrap_err(), expected);
    assert_says(&expected, &["268435460", "268435456", "67108865"]);
}

#[test]
fn statistics_of_more_channels_than_one_binding_holds_are_refused_with_both_sizes() {
    // 12 bytes of input per channel fit, 16 bytes of statistics do not: those are not cut.
    let (device, queue) =
        own_device(&adapter(), |limits| limits.max_storage_buffer_binding_size = 64 << 10);
    let device = Device::from_wgpu(device, queue).unwrap();
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(5000), [device.clone()]).unwrap();
    let error = block_on(layer.forward_train(&[device.zeros(&[3, 5000]).unwrap()])).unwrap_err();
    assert!(matches!(error, Error::Limit(LimitError::Binding { .. })), "{error:?}");
    assert_says(&error, &["80000", "65536"]);
}

#[test]
fn values_that_are_not_as_many_as_the_dimensions_say_are_refused() {
    for device in devices() {
        for (dims, found, expected) in
            [(vec![2, 3], 5, 6), (vec![0, 3], 1, 0), (vec![2, 3, 4], 25, 24)]
        {
            let error = device.upload(&dims, &vec![0.0; found as usize]).unwrap_err();
            assert_eq!(
                error,
                Error::Argument(ArgumentError::Length { argument: "values", found, expected })
            );
        }
        let huge = vec![usize::MAX, 2, usize::MAX];
        assert_eq!(
            device.zeros(&huge).unwrap_err(),
            Error::Shape(ShapeError::TooLarge { dims: huge })
        );
        // More than any memory, but within 64 bits: an error of the device, not an abort.
        let error = device.zeros(&[1, 1 << 61]).unwrap_err();
        assert!(matches!(error, Error::Limit(_) | Error::Gpu(_)), "{error:?}");
    }
}

#[test]
fn parameters_and_running_statistics_of_another_length_are_refused_and_none_is_set() {
    for kind in Kind::ALL {
        let mut layer = trained(kind.devices(2));
        for (weight, bias, argument, found) in [
            (&[1.0; 4][..], &[0.0; 3][..], "weight", 4),
            (&[1.0; 3], &[0.0; 2], "bias", 2),
            (&[], &[0.0; 3], "weight", 0),
        ] {
            let error = layer.set_parameters(Some(weight), Some(bias)).unwrap_err();
            assert_eq!(
                error,
                Error::Argument(ArgumentError::Length { argument, found, expected: 3 })
            );
            assert_says(&error, &[argument, &format!("{found} value"), "expected 3"]);
            assert_works(&mut layer);
        }
        for (mean, var, argument) in [(2, 3, "running_mean"), (3, 4, "running_var")] {
            let running =
                RunningStats { mean: vec![0.0; mean], var: vec![1.0; var], num_batches_tracked: 9 };
            let error = layer.set_running_stats(running).unwrap_err();
            assert_says(&error, &[argument, "expected 3"]);
            assert_works(&mut layer);
        }
    }
}

#[test]
fn what_the_layer_was_configured_without_cannot_be_set() {
    let config = BatchNormConfig::torch(2).with_affine(false).with_track_running_stats(false);
    for device in devices() {
        let mut layer = SyncBatchNorm::new(config.clone(), [device]).unwrap();
        let none = |argument, setting| {
            Error::Argument(ArgumentError::NoSuchParameter { argument, setting })
        };
        let error = layer.set_parameters(Some(&[1.0; 2]), None).unwrap_err();
        assert_eq!(error, none("weight", "with_weight"));
        let error = layer.set_parameters(None, Some(&[1.0; 2])).unwrap_err();
        assert_eq!(error, none("bias", "with_bias"));
        let error = layer.set_running_stats(RunningStats::new(2)).unwrap_err();
        assert_eq!(error, none("running statistics", "with_track_running_stats"));
        assert_eq!(layer.running_stats(), None);
    }
}

#[test]
fn a_setting_outside_its_range_or_no_device_makes_no_group() {
    let refused = |config, devices| match SyncBatchNorm::new(config, devices).unwrap_err() {
        Error::Config(error) => error,
        other => panic!("{other:?}"),
    };
    let error = refused(BatchNormConfig::torch(0), vec![Device::host()]);
    assert!(
        matches!(error, ConfigError::OutOfRange { name: "num_features", found: 0.0, .. }),
        "{error:?}"
    );
    let error = refused(BatchNormConfig::torch(1).with_eps(-1.0), vec![Device::host()]);
    assert!(matches!(error, ConfigError::OutOfRange { name: "eps", found: -1.0, .. }), "{error:?}");
    assert_eq!(refused(BatchNormConfig::torch(1), vec![]), ConfigError::NoDevices);
}
