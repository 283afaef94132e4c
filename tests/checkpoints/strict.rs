//! What a layer keeps and leaves out, strictly and not.

use syncbn::config::Momentum;
use syncbn::error::{Error, StateError};
use syncbn::state::{Checkpoint, LoadOptions, LoadReport};

use super::*;

fn lenient() -> LoadOptions {
    LoadOptions { strict: false, ..LoadOptions::default() }
}

fn read(tensors: &[RawTensor]) -> StateDict {
    Checkpoint::from_bytes(file(tensors)).unwrap().layer("bn").unwrap()
}

#[test]
fn a_file_with_weight_and_bias_alone_loads_without_strict_and_says_what_was_missing() {
    let loaded = read(&vectors("bn")[..2]);
    let mut bn = layer(BatchNormConfig::torch(CHANNELS));
    let fresh = state_of(&bn);
    let error = bn.load_state(&loaded, &LoadOptions::default()).unwrap_err();
    let Error::State(StateError::Missing { name, found, .. }) = error else { panic!("{error:?}") };
    assert_eq!((name.as_str(), found.len()), ("bn.running_mean", 2));
    assert_eq!(state_of(&bn), fresh);

    let report = bn.load_state(&loaded, &lenient()).unwrap();
    let missing = ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked"];
    assert_eq!(
        report,
        LoadReport { missing: missing.map(str::to_owned).into(), unexpected: vec![] }
    );
    let after = state_of(&bn);
    assert_eq!((&after.weight, &after.bias), (&loaded.weight, &loaded.bias));
    assert_eq!(after.running_mean, fresh.running_mean);
    assert_eq!(after.running_var, fresh.running_var);
}

#[test]
fn what_a_layer_has_no_place_for_is_left_over() {
    let mut tensors = vectors("bn");
    tensors.push(vector("bn.weight_ema", &[0.0; CHANNELS]));
    tensors.push(vector("bn.inner.weight", &[0.0; CHANNELS]));
    let loaded = read(&tensors);
    let mut bn = layer(BatchNormConfig::torch(CHANNELS).with_bias(false));
    let strictly = bn.load_state(&loaded, &LoadOptions::default()).unwrap_err();
    assert_eq!(strictly, StateError::Unexpected { name: "bn.bias".into() }.into());
    let report = bn.load_state(&loaded, &lenient()).unwrap();
    assert_eq!(report.unexpected, ["bn.bias", "bn.weight_ema"]);
    let state = state_of(&bn);
    assert_eq!((state.bias, state.weight), (None, loaded.weight.clone()));
    // With a bias, what lies beside is left over alone.
    let mut whole = layer(BatchNormConfig::torch(CHANNELS));
    let strictly = whole.load_state(&loaded, &LoadOptions::default()).unwrap_err();
    assert_eq!(strictly, StateError::Unexpected { name: "bn.weight_ema".into() }.into());
}

#[test]
fn what_is_there_is_checked_without_strict_too() {
    let mut bn = layer(BatchNormConfig::torch(CHANNELS));
    let fresh = state_of(&bn);
    for (tensor, words) in [
        (vector("bn.weight", &[1.0; 4]), "bn.weight has shape [4], expected [3]"),
        (vector("bn.bias", &[0.0, f32::NAN, 0.0]), "bn.bias[1] is NaN"),
        (vector("bn.running_var", &[1.0, 1.0, -1.0]), "bn.running_var[2] is -1"),
    ] {
        let error = bn.load_state(&read(&[tensor]), &lenient()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(state_of(&bn), fresh);
    }
}

#[test]
fn the_cumulative_average_asks_for_its_counter_unless_told_otherwise() {
    let mut bn = layer(BatchNormConfig::torch(CHANNELS).with_momentum(Momentum::Cumulative));
    let error = bn.load_state(&read(&vectors("bn")), &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("bn.num_batches_tracked is missing"), "{error}");
    let report = bn.load_state(&read(&vectors("bn")), &lenient()).unwrap();
    assert_eq!(report.missing, ["bn.num_batches_tracked"]);
}
