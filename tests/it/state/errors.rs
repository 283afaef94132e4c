//! Every error of reading, writing and taking in a state: it names the tensor, the channel, what
//! was found, and nothing is loaded by halves.

use safetensors::Dtype;
use syncbn::{
    BatchNormConfig, Error,
    config::Momentum,
    error::StateError,
    state::{Checkpoint, LoadOptions, Naming, StateDict},
};

use super::*;

type RawTensor = (&'static str, Dtype, Vec<usize>, Vec<u8>);

/// A good file of a layer behind the prefix `bn.`, tensor by tensor.
fn good(naming: Naming) -> Vec<RawTensor> {
    let vector = |name, value: f32| (name, Dtype::F32, vec![CHANNELS], f32s(&[value; CHANNELS]));
    match &*naming.framework {
        "PyTorch" => vec![
            vector("bn.weight", 1.0),
            vector("bn.bias", 0.5),
            vector("bn.running_mean", -1.0),
            vector("bn.running_var", 2.0),
            ("bn.num_batches_tracked", Dtype::I64, vec![], 7i64.to_le_bytes().to_vec()),
        ],
        _ => vec![
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
    read_as(bytes, "bn", config, &LoadOptions::default())
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
    for naming in [Naming::TORCH, Naming::MINDSPORE] {
        let state = read(&file(&good(naming.clone())), &torch()).unwrap();
        assert_eq!(state.running_var, Some(vec![2.0; CHANNELS]));
        assert_eq!(state.num_batches_tracked, (naming == Naming::TORCH).then_some(7));
    }
}

#[test]
fn a_missing_tensor_is_named_beside_those_of_the_layer() {
    for naming in [Naming::TORCH, Naming::MINDSPORE] {
        let names: Vec<&str> = good(naming.clone()).iter().map(|tensor| tensor.0).collect();
        for &name in names.iter().filter(|name| !name.ends_with("tracked")) {
            let bytes = without(naming.clone(), name);
            let error = refused(&bytes, &torch(), &[name, "missing"]);
            let others = names.iter().filter(|other| **other != name);
            let found: Vec<String> = others.map(|n| n.to_string()).collect();
            let name = name.to_owned();
            let of = found.len();
            assert_eq!(error, StateError::Missing { name, found, of, guess: None });
        }
    }
    let error = refused(&file(&[]), &torch(), &["bn.weight is missing; found: nothing"]);
    let name = "bn.weight".into();
    let found = vec![];
    let of = 0;
    let guess = None;
    assert_eq!(error, StateError::Missing { name, found, of, guess });
}

#[test]
fn a_wrong_path_gets_a_guess() {
    let bytes = file(&good(Naming::TORCH));
    for path in ["", "bn1", "layer.bn.", "b"] {
        let checkpoint = Checkpoint::from_bytes(bytes.clone()).unwrap();
        let message = checkpoint.layer(path).unwrap_err().to_string();
        let dot = if path.is_empty() || path.ends_with('.') { "" } else { "." };
        let wanted = format!("{path}{dot}weight is missing; found: bn.");
        assert!(message.starts_with(&wanted) && message.contains("mean \"bn\"?"), "{message}");
    }
}

#[test]
fn the_cumulative_average_needs_the_counter_that_one_naming_does_not_have() {
    let config = torch().with_momentum(Momentum::Cumulative);
    read(&file(&good(Naming::TORCH)), &config).unwrap();
    for prefix in ["bn", "bn."] {
        let bytes = file(&good(Naming::MINDSPORE));
        let error = read_as(&bytes, prefix, &config, &LoadOptions::default()).unwrap_err();
        let StateError::Missing { name, found, .. } = &error else { panic!("{error:?}") };
        assert_eq!((name.as_str(), found.len()), ("bn.num_batches_tracked", 4), "{prefix:?}");
    }
    // Without running statistics there is nothing to average.
    let config = config.with_track_running_stats(false);
    let two: Vec<RawTensor> = good(Naming::MINDSPORE).into_iter().take(2).collect();
    read(&file(&two), &config).unwrap();
}

#[test]
fn a_tensor_that_the_layer_was_configured_without_is_refused() {
    let no_bias = torch().with_bias(false);
    let no_affine = torch().with_affine(false);
    let no_running = torch().with_track_running_stats(false);
    for (naming, config, name) in [
        (Naming::TORCH, &no_bias, "bn.bias"),
        (Naming::MINDSPORE, &no_bias, "bn.beta"),
        (Naming::TORCH, &no_affine, "bn.weight"),
        (Naming::MINDSPORE, &no_affine, "bn.gamma"),
        (Naming::TORCH, &no_running, "bn.running_mean"),
        (Naming::MINDSPORE, &no_running, "bn.moving_mean"),
    ] {
        let error = refused(&file(&good(naming.clone())), config, &[name, "configured without"]);
        assert_eq!(error, StateError::Unexpected { name: name.to_owned() });
    }
    // The counter alone.
    let mut tensors = good(Naming::TORCH);
    tensors.retain(|tensor| !tensor.0.contains("running"));
    let error = refused(&file(&tensors), &no_running, &["bn.num_batches_tracked"]);
    assert_eq!(error, StateError::Unexpected { name: "bn.num_batches_tracked".into() });
}

#[test]
fn another_shape_or_type_is_refused() {
    let seven = 7i64.to_le_bytes().to_vec();
    for (naming, name, counter) in [
        (Naming::TORCH, "bn.bias", false),
        (Naming::TORCH, "bn.running_var", false),
        (Naming::MINDSPORE, "bn.beta", false),
        (Naming::MINDSPORE, "bn.moving_variance", false),
        (Naming::TORCH, "bn.num_batches_tracked", true),
    ] {
        if counter {
            let bytes = with(naming.clone(), (name, Dtype::I64, vec![2], seven.repeat(2)));
            let error = refused(&bytes, &torch(), &[name, "shape [2]", "expected []"]);
            assert_eq!(
                error,
                StateError::Shape { name: name.into(), found: vec![2], expected: vec![] }
            );
            let bytes = with(naming.clone(), (name, Dtype::BOOL, vec![], vec![1]));
            let error = refused(&bytes, &torch(), &[name, "BOOL", "I64"]);
            assert!(matches!(error, StateError::Dtype { .. }));
            // One value with a dimension is one value.
            read(&with(naming.clone(), (name, Dtype::I64, vec![1], seven.clone())), &torch())
                .unwrap();
            continue;
        }
        let bytes = with(naming.clone(), (name, Dtype::F32, vec![4], f32s(&[1.0; 4])));
        let error = refused(&bytes, &torch(), &[name, "[4]", "expected [5]"]);
        assert_eq!(
            error,
            StateError::Shape { name: name.into(), found: vec![4], expected: vec![CHANNELS] }
        );
        for shape in [vec![1, CHANNELS], vec![CHANNELS, 1], vec![1, CHANNELS, 1, 1]] {
            let bytes =
                with(naming.clone(), (name, Dtype::F32, shape.clone(), f32s(&[1.0; CHANNELS])));
            let error = refused(&bytes, &torch(), &[name, &format!("{shape:?}"), "num_features"]);
            assert_eq!(error, StateError::Rank { name: name.into(), found: shape });
        }
        for (dtype, bytes, word) in [
            (Dtype::I32, vec![0; 4 * CHANNELS], "I32"),
            (Dtype::F8_E4M3, vec![0; CHANNELS], "F8_E4M3"),
        ] {
            let error = refused(
                &with(naming.clone(), (name, dtype, vec![CHANNELS], bytes)),
                &torch(),
                &[name, word, "F32"],
            );
            assert!(matches!(error, StateError::Dtype { .. }), "{error:?}");
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_named_with_its_channel() {
    let accepting = LoadOptions { allow_non_finite: true, ..LoadOptions::default() };
    for naming in [Naming::TORCH, Naming::MINDSPORE] {
        for (name, ..) in good(naming.clone()).into_iter().filter(|tensor| tensor.1 == Dtype::F32) {
            for value in [f32::NAN, f32::INFINITY] {
                for channel in [0, 3] {
                    let mut values = [1.0; CHANNELS];
                    values[channel] = value;
                    // The first is named.
                    values[CHANNELS - 1] = f32::INFINITY;
                    let bytes =
                        with(naming.clone(), (name, Dtype::F32, vec![CHANNELS], f32s(&values)));
                    let word = format!("{name}[{channel}] is {value}");
                    let error =
                        refused(&bytes, &torch(), &[&word, "LoadOptions::allow_non_finite"]);
                    assert!(matches!(
                        error,
                        StateError::NotFinite { channel: found, .. } if found == channel
                    ));
                    read_as(&bytes, "bn", &torch(), &accepting).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_negative_variance_or_count_is_refused_whatever_is_allowed() {
    let accepting = LoadOptions { allow_non_finite: true, ..LoadOptions::default() };
    for (naming, name) in
        [(Naming::TORCH, "bn.running_var"), (Naming::MINDSPORE, "bn.moving_variance")]
    {
        for (value, allowed) in
            [(-1e-30, false), (-1.0, false), (f32::NEG_INFINITY, false), (0.0, true), (-0.0, true)]
        {
            let mut values = [1.0; CHANNELS];
            values[2] = value;
            let bytes = with(naming.clone(), (name, Dtype::F32, vec![CHANNELS], f32s(&values)));
            let found = read_as(&bytes, "bn", &torch(), &accepting);
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
    let bytes = with(Naming::TORCH, (name, Dtype::I64, vec![], (-3i64).to_le_bytes().to_vec()));
    let error = refused(&bytes, &torch(), &[name, "-3", "at least 0"]);
    assert_eq!(error, StateError::Count { name: name.into(), found: "-3".into() });
}

#[test]
fn bytes_and_files_that_are_none_are_refused() {
    for bytes in [&b""[..], b"not a safetensors file", &[0; 64], &file(&good(Naming::TORCH))[..200]]
    {
        let error = refused(bytes, &torch(), &["not a safetensors file"]);
        assert!(matches!(error, StateError::Format { .. }), "{error:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.safetensors");
    let error = Checkpoint::open(&absent).unwrap_err();
    assert!(
        matches!(error, StateError::File { .. })
            && error.to_string().contains("absent.safetensors"),
        "{error}"
    );
    let nowhere = folder.path().join("no such folder").join("state.safetensors");
    let state = state_of(&trained(torch(), Kind::Host, 20));
    let error = Checkpoint::update(&nowhere, [("", state)]).unwrap_err();
    assert!(
        matches!(error, StateError::File { .. }) && error.to_string().contains("no such folder"),
        "{error}"
    );
}

#[test]
fn a_state_that_is_refused_leaves_the_layer_as_it_was() {
    for kind in Kind::ALL {
        let mut bn = trained(torch(), kind, 21);
        let before = state_of(&bn);
        let acts = behaviour(&mut bn);
        let other = state_of(&trained(torch(), Kind::Host, 22));
        let vector = |value: f32| Some(vec![value; CHANNELS]);
        let mut nan = vec![1.0; CHANNELS];
        nan[4] = f32::NAN;
        // Each has a good first half.
        let changed = |change: &dyn Fn(&mut StateDict)| {
            let mut state = other.clone();
            change(&mut state);
            state
        };
        let bad: [(StateDict, &str); 8] = [
            (changed(&|of| of.running_var = Some(nan.clone())), "running_var[4] is NaN"),
            (changed(&|of| of.running_mean = Some(nan.clone())), "running_mean[4] is NaN"),
            (changed(&|of| of.weight = Some(nan.clone())), "weight[4] is NaN"),
            (changed(&|of| of.running_var = vector(-1.0)), "running_var[0] is -1"),
            (changed(&|of| of.bias = Some(vec![0.0; 4])), "bias has shape [4], expected [5]"),
            (
                changed(&|of| of.running_var = Some(vec![])),
                "running_var has shape [0], expected [5]",
            ),
            (
                changed(&|of| of.bias = None),
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
