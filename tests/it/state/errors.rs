//! Every error of reading, writing and taking in a state: it names the tensor, the channel, what
//! was found, and nothing is loaded by halves.

use safetensors::Dtype;
use syncbn::{
    BatchNormConfig, Error,
    config::Momentum,
    error::StateError,
    state::{LoadOptions, Naming, StateDict},
};

use super::*;

type RawTensor = (&'static str, Dtype, Vec<usize>, Vec<u8>);

/// A good file of a layer behind the prefix `bn.`, tensor by tensor.
fn good(naming: Naming) -> Vec<RawTensor> {
    let vector = |name, value: f32| (name, Dtype::F32, vec![CHANNELS], f32s(&[value; CHANNELS]));
    match naming {
        Naming::Torch => vec![
            vector("bn.weight", 1.0),
            vector("bn.bias", 0.5),
            vector("bn.running_mean", -1.0),
            vector("bn.running_var", 2.0),
            ("bn.num_batches_tracked", Dtype::I64, vec![], 7i64.to_le_bytes().to_vec()),
        ],
        Naming::MindSpore => vec![
            vector("bn.gamma", 1.0),
            vector("bn.beta", 0.5),
            vector("bn.moving_mean", -1.0),
            vector("bn.moving_variance", 2.0),
        ],
    }
}

/// The good file with one tensor replaced.
fn with(naming: Naming, tensor: RawTensor) -> Vec<u8> {
    let mut tensors = good(naming);
    let place = tensors.iter().position(|(name, ..)| *name == tensor.0).unwrap();
    tensors[place] = tensor;
    file(&tensors)
}

fn without(naming: Naming, name: &str) -> Vec<u8> {
    let mut tensors = good(naming);
    tensors.retain(|tensor| tensor.0 != name);
    file(&tensors)
}

fn read(bytes: &[u8], config: &BatchNormConfig) -> Result<StateDict, StateError> {
    StateDict::from_safetensors(bytes, config, &options(None, "bn"))
}

fn refused(bytes: &[u8], config: &BatchNormConfig, words: &[&str]) -> StateError {
    let error = read(bytes, config).unwrap_err();
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
    error
}

#[test]
fn the_good_files_are_good() {
    for naming in [Naming::Torch, Naming::MindSpore] {
        let state = read(&file(&good(naming)), &torch()).unwrap();
        assert_eq!(state.running_var, Some(vec![2.0; CHANNELS]));
        assert_eq!(state.num_batches_tracked, (naming == Naming::Torch).then_some(7));
    }
}

#[test]
fn a_missing_tensor_is_named_beside_what_the_file_holds() {
    for naming in [Naming::Torch, Naming::MindSpore] {
        let names: Vec<&str> = good(naming).iter().map(|tensor| tensor.0).collect();
        for &name in &names {
            let error = refused(&without(naming, name), &torch(), &[name, "missing"]);
            let mut found: Vec<String> =
                names.iter().filter(|other| **other != name).map(|n| n.to_string()).collect();
            found.sort();
            assert_eq!(error, StateError::Missing { name: name.to_owned(), found });
        }
    }
    let error = refused(&file(&[]), &torch(), &["bn.weight is missing; found: nothing"]);
    assert_eq!(error, StateError::Missing { name: "bn.weight".into(), found: vec![] });
}

#[test]
fn a_wrong_prefix_is_shown_the_names_that_are_there() {
    let bytes = file(&good(Naming::Torch));
    for prefix in ["", "bn1", "layer.bn.", "b"] {
        let error =
            StateDict::from_safetensors(&bytes, &torch(), &options(None, prefix)).unwrap_err();
        let message = error.to_string();
        let dot = if prefix.is_empty() || prefix.ends_with('.') { "" } else { "." };
        let wanted = format!("{prefix}{dot}weight is missing");
        assert!(message.contains(&wanted) && message.contains("bn.running_mean"), "{message}");
    }
}

#[test]
fn the_cumulative_average_needs_the_counter_that_one_naming_does_not_have() {
    let config = torch().with_momentum(Momentum::Cumulative);
    read(&file(&good(Naming::Torch)), &config).unwrap();
    for prefix in ["bn", "bn."] {
        let bytes = file(&good(Naming::MindSpore));
        let error =
            StateDict::from_safetensors(&bytes, &config, &options(None, prefix)).unwrap_err();
        let StateError::Missing { name, found } = &error else { panic!("{error:?}") };
        assert_eq!(
            (name.as_str(), found.len()),
            ("bn.num_batches_tracked", 4),
            "prefix {prefix:?}"
        );
    }
    // Without running statistics there is nothing to average.
    let config = config.with_track_running_stats(false);
    let two: Vec<RawTensor> = good(Naming::MindSpore).into_iter().take(2).collect();
    read(&file(&two), &config).unwrap();
}

#[test]
fn a_tensor_that_the_layer_was_configured_without_is_refused() {
    let no_bias = torch().with_bias(false);
    let no_affine = torch().with_affine(false);
    let no_running = torch().with_track_running_stats(false);
    for (naming, config, name) in [
        (Naming::Torch, &no_bias, "bn.bias"),
        (Naming::MindSpore, &no_bias, "bn.beta"),
        (Naming::Torch, &no_affine, "bn.weight"),
        (Naming::MindSpore, &no_affine, "bn.gamma"),
        (Naming::Torch, &no_running, "bn.running_mean"),
        (Naming::MindSpore, &no_running, "bn.moving_mean"),
    ] {
        let error = refused(&file(&good(naming)), config, &[name, "configured without"]);
        assert_eq!(error, StateError::Unexpected { name: name.to_owned() });
    }
    // The counter alone.
    let mut tensors = good(Naming::Torch);
    tensors.retain(|tensor| !tensor.0.contains("running"));
    let error = refused(&file(&tensors), &no_running, &["bn.num_batches_tracked"]);
    assert_eq!(error, StateError::Unexpected { name: "bn.num_batches_tracked".into() });
}

#[test]
fn another_shape_or_type_is_refused() {
    let seven = 7i64.to_le_bytes().to_vec();
    for (naming, name, counter) in [
        (Naming::Torch, "bn.bias", false),
        (Naming::Torch, "bn.running_var", false),
        (Naming::MindSpore, "bn.beta", false),
        (Naming::MindSpore, "bn.moving_variance", false),
        (Naming::Torch, "bn.num_batches_tracked", true),
    ] {
        if counter {
            let bytes = with(naming, (name, Dtype::I64, vec![2], seven.repeat(2)));
            let error = refused(&bytes, &torch(), &[name, "shape [2]", "expected []"]);
            assert_eq!(
                error,
                StateError::Shape { name: name.into(), found: vec![2], expected: vec![] }
            );
            let error = refused(
                &with(naming, (name, Dtype::I32, vec![], vec![7, 0, 0, 0])),
                &torch(),
                &[name, "I32", "I64"],
            );
            assert!(matches!(error, StateError::Dtype { .. }));
            // One value with a dimension is one value.
            read(&with(naming, (name, Dtype::I64, vec![1], seven.clone())), &torch()).unwrap();
            continue;
        }
        let bytes = with(naming, (name, Dtype::F32, vec![4], f32s(&[1.0; 4])));
        let error = refused(&bytes, &torch(), &[name, "[4]", "expected [5]"]);
        assert_eq!(
            error,
            StateError::Shape { name: name.into(), found: vec![4], expected: vec![CHANNELS] }
        );
        for shape in [vec![1, CHANNELS], vec![CHANNELS, 1], vec![1, CHANNELS, 1, 1]] {
            let bytes = with(naming, (name, Dtype::F32, shape.clone(), f32s(&[1.0; CHANNELS])));
            let error = refused(&bytes, &torch(), &[name, &format!("{shape:?}"), "num_features"]);
            assert_eq!(error, StateError::Rank { name: name.into(), found: shape });
        }
        for (dtype, bytes, word) in [
            (Dtype::F16, vec![0; 2 * CHANNELS], "F16"),
            (Dtype::BF16, vec![0; 2 * CHANNELS], "BF16"),
            (Dtype::F64, vec![0; 8 * CHANNELS], "F64"),
            (Dtype::I32, vec![0; 4 * CHANNELS], "I32"),
        ] {
            let error = refused(
                &with(naming, (name, dtype, vec![CHANNELS], bytes)),
                &torch(),
                &[name, word, "F32"],
            );
            assert!(matches!(error, StateError::Dtype { .. }), "{error:?}");
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_named_with_its_channel() {
    let accepting = LoadOptions { allow_non_finite: true, ..options(None, "bn") };
    for naming in [Naming::Torch, Naming::MindSpore] {
        for (name, ..) in good(naming).into_iter().filter(|tensor| tensor.1 == Dtype::F32) {
            for value in [f32::NAN, f32::INFINITY] {
                for channel in [0, 3] {
                    let mut values = [1.0; CHANNELS];
                    values[channel] = value;
                    // The first is named.
                    values[CHANNELS - 1] = f32::INFINITY;
                    let bytes = with(naming, (name, Dtype::F32, vec![CHANNELS], f32s(&values)));
                    let word = format!("{name}[{channel}] is {value}");
                    let error =
                        refused(&bytes, &torch(), &[&word, "LoadOptions::allow_non_finite"]);
                    assert!(
                        matches!(error, StateError::NotFinite { channel: found, .. } if found == channel)
                    );
                    StateDict::from_safetensors(&bytes, &torch(), &accepting).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_negative_variance_or_count_is_refused_whatever_is_allowed() {
    let accepting = LoadOptions { allow_non_finite: true, ..options(None, "bn") };
    for (naming, name) in
        [(Naming::Torch, "bn.running_var"), (Naming::MindSpore, "bn.moving_variance")]
    {
        for (value, allowed) in
            [(-1e-30, false), (-1.0, false), (f32::NEG_INFINITY, false), (0.0, true), (-0.0, true)]
        {
            let mut values = [1.0; CHANNELS];
            values[2] = value;
            let bytes = with(naming, (name, Dtype::F32, vec![CHANNELS], f32s(&values)));
            let found = StateDict::from_safetensors(&bytes, &torch(), &accepting);
            if allowed {
                found.unwrap();
                continue;
            }
            let error = found.unwrap_err();
            assert_eq!(
                error,
                StateError::NegativeVariance { name: name.into(), channel: 2, found: value }
            );
            assert!(error.to_string().contains(&format!("{name}[2] is {value}")), "{error}");
        }
    }
    let name = "bn.num_batches_tracked";
    let bytes = with(Naming::Torch, (name, Dtype::I64, vec![], (-3i64).to_le_bytes().to_vec()));
    let error = refused(&bytes, &torch(), &[name, "-3", "at least 0"]);
    assert_eq!(error, StateError::NegativeCount { name: name.into(), found: -3 });
}

#[test]
fn bytes_and_files_that_are_none_are_refused() {
    for bytes in [&b""[..], b"not a safetensors file", &[0; 64], &file(&good(Naming::Torch))[..200]]
    {
        let error = refused(bytes, &torch(), &["not a safetensors file"]);
        assert!(matches!(error, StateError::Format { .. }), "{error:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.safetensors");
    let error = StateDict::load(&absent, &torch(), &LoadOptions::default()).unwrap_err();
    assert!(
        matches!(error, StateError::File { .. })
            && error.to_string().contains("absent.safetensors"),
        "{error}"
    );
    let nowhere = folder.path().join("no such folder").join("state.safetensors");
    let error =
        state_of(&trained(torch(), Kind::Host, 20)).save(&nowhere, Naming::Torch, "").unwrap_err();
    assert!(
        matches!(error, StateError::File { .. }) && error.to_string().contains("no such folder"),
        "{error}"
    );
}

#[test]
fn a_state_that_is_refused_leaves_the_layer_as_it_was() {
    for kind in Kind::ALL {
        let mut bn = trained(torch(), kind, 21);
        let (before, acts) = (state_of(&bn), behaviour(&mut bn));
        let other = state_of(&trained(torch(), Kind::Host, 22));
        let vector = |value: f32| Some(vec![value; CHANNELS]);
        let mut nan = vec![1.0; CHANNELS];
        nan[4] = f32::NAN;
        // Each has a good first half.
        let bad: [(StateDict, &str); 8] = [
            (
                StateDict { running_var: Some(nan.clone()), ..other.clone() },
                "running_var[4] is NaN",
            ),
            (
                StateDict { running_mean: Some(nan.clone()), ..other.clone() },
                "running_mean[4] is NaN",
            ),
            (StateDict { weight: Some(nan.clone()), ..other.clone() }, "weight[4] is NaN"),
            (StateDict { running_var: vector(-1.0), ..other.clone() }, "running_var[0] is -1"),
            (
                StateDict { bias: Some(vec![0.0; 4]), ..other.clone() },
                "bias has shape [4], expected [5]",
            ),
            (
                StateDict { running_var: Some(vec![]), ..other.clone() },
                "running_var has shape [0], expected [5]",
            ),
            (
                StateDict { bias: None, ..other.clone() },
                "bias is missing; found: weight, running_mean, running_var",
            ),
            (StateDict::default(), "weight is missing; found: nothing"),
        ];
        for (state, words) in bad {
            let error = bn.load_state(&state, &LoadOptions::default()).unwrap_err();
            assert!(matches!(error, Error::State(_)), "{error:?}");
            assert!(error.to_string().contains(words), "{error} does not say {words}");
            assert_eq!(state_of(&bn), before, "{kind:?}, {words}");
            assert_eq!(behaviour(&mut bn), acts, "{kind:?}, {words}");
        }
        bn.load_state(&other, &LoadOptions::default()).unwrap();
        assert_eq!(state_of(&bn), other);
    }
}
