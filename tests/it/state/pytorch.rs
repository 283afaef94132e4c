//! Files that PyTorch 2.15 wrote, and its outputs in evaluation; `golden/pytorch/README.md` says
//! how they were made.

use std::path::PathBuf;

use safetensors::SafeTensors;
use syncbn::{config::Momentum, error::StateError};
use syncbn_testkit::golden::Store;

use super::*;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pytorch")
}

/// An activation out of `eval.safetensors`.
fn activation(name: &str) -> Batch {
    let store = Store::open(&folder().join("eval.safetensors")).unwrap();
    let (dims, values) = store.f32(name).unwrap();
    Batch { dims: dims.to_vec(), values: values.to_vec() }
}

/// How far two careful evaluations in f32 may be apart, relative to |α·x| + |α·mean| + |bias| with
/// α = weight·inv_std.
///
/// PyTorch forms α (sum, root, reciprocal, product: 4 roundings of at most half an ulp, the root
/// and the reciprocal being correctly rounded), bias − mean·α (2 more) and α·x + that (2 more);
/// this crate rounds at most 6 times on the way to terms no larger. Together less than 16 half ulp.
const TOLERANCE: f64 = 16.0 / (1u64 << 24) as f64;

/// The worst difference from PyTorch's outputs as a share of the tolerance, or where it exceeds it.
fn check(layer: &str, prefix: &str, config: &BatchNormConfig, kind: Kind) -> Result<f64, String> {
    let path = folder().join("model.safetensors");
    let state = Checkpoint::open(path).unwrap().layer(prefix).unwrap();
    assert_eq!(state.num_batches_tracked, Some(3));
    let x = activation(&format!("{layer}.x"));
    let y = activation(&format!("{layer}.y"));
    // The samples one by one on three ranks: evaluation is the same wherever they are.
    let mut bn = SyncBatchNorm::new(config.clone(), kind.devices(3)).unwrap();
    bn.load_state(&state, &LoadOptions::default()).unwrap();
    let mut dims = x.dims.clone();
    dims[0] = 1;
    let samples = x.values.chunks(x.values.len() / x.dims[0]);
    let samples: Vec<Batch> =
        samples.map(|values| Batch { dims: dims.clone(), values: values.to_vec() }).collect();
    let found = read(&block_on(bn.forward_eval(&upload(&bn, &samples))).unwrap().output).concat();

    let vectors = [&state.weight, &state.bias, &state.running_mean, &state.running_var];
    let [weight, bias, mean, var] = vectors.map(|values| widened(values.as_ref().unwrap()));
    let mut worst = 0f64;
    for (index, (&found, &expected)) in found.iter().zip(&y.values).enumerate() {
        let c = x.channel(index);
        let alpha = weight[c].abs() / (var[c] + config.eps).sqrt();
        let size = alpha * (f64::from(x.values[index]).abs() + mean[c].abs()) + bias[c].abs();
        let share = (f64::from(found) - f64::from(expected)).abs() / (TOLERANCE * size);
        // A NaN is not within.
        let within = share <= 1.0;
        if !within {
            return Err(format!("{layer}, {kind:?}, value {index}: {found}, PyTorch {expected}"));
        }
        worst = worst.max(share);
    }
    Ok(worst)
}

fn check_all(layer: &str, prefix: &str, config: &BatchNormConfig) {
    for kind in Kind::ALL {
        match check(layer, prefix, config, kind) {
            Ok(worst) => println!("{layer}, {kind:?}: {worst:.3} of the tolerance"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_layer_with_default_settings_evaluates_as_in_pytorch() {
    check_all("bn1", "layer1.0.bn1", &BatchNormConfig::torch(5));
}

#[test]
fn a_layer_with_another_eps_and_the_cumulative_average_evaluates_as_in_pytorch() {
    let config = BatchNormConfig::torch(4).with_eps(1e-3).with_momentum(Momentum::Cumulative);
    check_all("bn2", "layer1.0.bn2.", &config);
    // The tolerance tells the two layers' eps apart.
    check("bn2", "layer1.0.bn2.", &config.with_eps(1e-5), Kind::Host).unwrap_err();
}

#[test]
fn a_layer_without_parameters_holds_its_running_statistics_alone() {
    let path = folder().join("no_affine.safetensors");
    let config = BatchNormConfig::torch(6).with_affine(false);
    let state = Checkpoint::open(&path).unwrap().layer("").unwrap();
    assert_eq!((&state.weight, &state.bias, state.num_batches_tracked), (&None, &None, Some(1)));
    let mean = state.running_mean.clone().unwrap();
    let var = state.running_var.clone().unwrap();
    let batches = [
        Batch::random(&[4, 6], &mut Random::new(30)),
        Batch::random(&[2, 6], &mut Random::new(31)),
    ];
    let expected = definition_with(&batches, None, &widened(&mean), &widened(&var), config.eps);
    for kind in Kind::ALL {
        let mut bn = SyncBatchNorm::new(config.clone(), kind.devices(2)).unwrap();
        bn.load_state(&state, &LoadOptions::default()).unwrap();
        let y = read(&block_on(bn.forward_eval(&upload(&bn, &batches))).unwrap().output);
        compare(&batches, &y, &expected, TOLERANCE_ULP)
            .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
    // An affine layer finds nothing to load here.
    let error = state.check(&BatchNormConfig::torch(6), &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, StateError::Missing { .. }), "{error:?}");
}

#[test]
fn a_file_written_again_holds_the_same_tensors() {
    for prefix in ["layer1.0.bn1", "layer1.0.bn2"] {
        let path = folder().join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let original = SafeTensors::deserialize(&bytes).unwrap();
        let state = Checkpoint::from_bytes(bytes.clone()).unwrap().layer(prefix).unwrap();
        let written = written(&state, Naming::TORCH, prefix);
        let written = SafeTensors::deserialize(&written).unwrap();
        let names = original.names().into_iter().filter(|name| name.starts_with(prefix)).count();
        assert_eq!(written.names().len(), names);
        for (name, tensor) in written.tensors() {
            let expected = original.tensor(&name).unwrap();
            assert_eq!(
                (tensor.dtype(), tensor.shape(), tensor.data()),
                (expected.dtype(), expected.shape(), expected.data())
            );
        }
    }
}
