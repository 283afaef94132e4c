//! Adding up where there is nothing to add to.

use pollster::block_on;
use syncbn::error::ArgumentError;
use syncbn::{Backward, BatchNorm, BatchNormConfig, Error, SyncBatchNorm};

use crate::common::{devices, virtual_gpus};

#[test]
fn without_a_target_of_weight_or_bias_it_is_refused_where_the_layer_has_gradients_of_them() {
    let config = BatchNormConfig::torch(2);
    let affine = [(true, false), (false, true), (false, false)];
    for device in devices() {
        for (weight, bias) in affine {
            let config = config.clone().with_weight(weight).with_bias(bias);
            for frozen in [false, true] {
                let config = config.clone().with_freeze_affine(frozen);
                let layer = SyncBatchNorm::new(config, [device.clone()]).unwrap();
                let x = device.upload(&[2, 2], &[0.0, 1.0, 2.0, 3.0]).unwrap();
                let saved = block_on(layer.forward_train(&x)).unwrap().saved;
                let mut target = device.zeros(&[2, 2]).unwrap();
                let request = Backward::of(&x, &x).input_gradient(&mut target).accumulate();
                let found = block_on(layer.backward(&saved, request));
                if frozen || !(weight || bias) {
                    found.expect("nothing that could add up");
                } else {
                    is_refused(found.map(drop));
                }
            }
        }
    }
}

#[test]
fn so_it_is_on_one_gpu_and_with_a_target_that_is_none() {
    let device = &virtual_gpus()[0];
    let layer = BatchNorm::new(BatchNormConfig::torch(2), device).unwrap();
    let x = device.upload(&[2, 2], &[0.0, 1.0, 2.0, 3.0]).unwrap();
    let saved = layer.forward_train(&x).unwrap().saved;
    let none: Option<&mut syncbn::Tensor> = None;
    let request = Backward::of(&x, &x).weight_gradient(none).accumulate();
    is_refused(layer.backward(&saved, request).map(drop));
}

fn is_refused(found: Result<(), Error>) {
    let error = found.expect_err("there is no target");
    let is_named =
        matches!(error, Error::Argument(ArgumentError::NotWanted { argument: "accumulate", .. }));
    assert!(is_named, "{error}");
    assert!(error.to_string().contains("neither the weight nor the bias has a target"), "{error}");
}
