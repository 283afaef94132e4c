//! Names: wrong ones, and those of frameworks and callers.

use safetensors::SafeTensors;
use syncbn::error::StateError;
use syncbn::state::{Checkpoint, Counter, Naming};

use super::*;

/// A model of 6000 tensors saved from a data parallel wrapper.
fn large() -> Vec<u8> {
    let mut tensors = Vec::new();
    for block in 0..1000 {
        let path = format!("module.layer{}.{}.bn1", 1 + block / 250, block % 250);
        tensors.extend(vectors(&path));
        let count = format!("{path}.num_batches_tracked");
        tensors.push(raw(&count, Dtype::I64, &[], 7i64.to_le_bytes().to_vec()));
        tensors.push(vector(&format!("{path}.conv.weight"), &[0.0; 2]));
    }
    file(&tensors)
}

#[test]
fn a_wrong_path_in_a_large_file_gets_a_few_names_and_a_guess() {
    let checkpoint = Checkpoint::from_bytes(large()).unwrap();
    assert_eq!(checkpoint.names().count(), 6000);
    for (asked, guess) in [
        ("layer1.0.bn1", Some("module.layer1.0.bn1")),
        ("model.module.layer3.17.bn1", Some("module.layer3.17.bn1")),
        ("module.layer2.8.bm1", Some("module.layer2.8.bn1")),
        ("decoder", None),
    ] {
        let error = checkpoint.layer(asked).unwrap_err();
        let message = error.to_string();
        let StateError::Missing { name, found, of, guess: made } = error else { panic!() };
        assert_eq!((name, of), (format!("{asked}.weight"), 6000));
        assert_eq!((made.as_deref(), found.len()), (guess, 3));
        assert!(message.len() < 300 && message.lines().count() <= 3, "{message}");
        if let Some(guess) = guess {
            assert!(message.contains(&format!("did you mean {guess:?}?")), "{message}");
            assert!(message.contains("and 5997 more"), "{message}");
            checkpoint.layer(guess).unwrap();
        }
    }
}

fn metadata(bytes: &[u8]) -> Vec<(String, String)> {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    header.metadata().iter().flatten().map(|(a, b)| (a.clone(), b.clone())).collect()
}

/// A file with one layer under these names.
fn written(naming: Naming, path: &str) -> Checkpoint {
    let mut checkpoint = Checkpoint::new().with_namings([naming]);
    checkpoint.set_layer(path, &state(2.0)).unwrap();
    checkpoint
}

#[test]
fn pytorch_s_metadata_are_written_under_pytorch_s_names() {
    let of = |naming| metadata(&written(naming, "bn").to_bytes().unwrap());
    let format = |value: &str| vec![("format".to_owned(), value.to_owned())];
    assert_eq!(of(Naming::TORCH), format("pt"));
    assert_eq!(of(Naming::TORCH_DATA_PARALLEL), format("pt"));
    assert_eq!(of(Naming::MINDSPORE), format("ms"));
    assert_eq!(of(Naming::FLAX), []);
    // What a file says stays.
    let view = (vec![2usize], [0u8; 8]);
    let view = TensorView::new(Dtype::F32, view.0, &view.1).unwrap();
    let said = [("format", "np"), ("epoch", "7")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let bytes = safetensors::serialize([("x", view)], Some(said.clone().into())).unwrap();
    let mut checkpoint = Checkpoint::from_bytes(bytes).unwrap();
    checkpoint.set_layer("bn", &state(1.0)).unwrap();
    let mut found = metadata(&checkpoint.to_bytes().unwrap());
    found.sort();
    assert_eq!(found, [said[1].clone(), said[0].clone()]);
}

#[test]
fn every_table_writes_names_of_its_own_that_are_found_again() {
    let tables = Naming::known().into_iter().chain([Naming::MINDSPORE_MINT]);
    for naming in tables {
        for path in ["a.0.bn", "a/0/bn", "bn", ""] {
            let bytes = written(naming.clone(), path).to_bytes().unwrap();
            let checkpoint = Checkpoint::from_bytes(bytes).unwrap();
            let mut expected: Vec<_> = naming.names(path).into_iter().flatten().collect();
            expected.sort();
            assert_eq!(checkpoint.names().collect::<Vec<_>>(), expected, "{naming:?}");
            assert_eq!(checkpoint.layers(), [path], "{naming:?}");
            let mut read = checkpoint.layer(path).unwrap();
            assert_eq!(read.num_batches_tracked.is_some(), naming.num_batches_tracked.is_some());
            read.num_batches_tracked = Some(7);
            assert_eq!(read, state(2.0), "{naming:?} {path:?}");
        }
    }
}

#[test]
fn a_layer_is_found_whichever_separator_is_asked_for() {
    let keras = file(&[
        vector("model/bn/gamma:0", &[1.0; CHANNELS]),
        vector("model/bn/moving_mean:0", &[2.0; CHANNELS]),
        vector("model/bn/moving_variance:0", &[3.0; CHANNELS]),
    ]);
    let checkpoint = Checkpoint::from_bytes(keras).unwrap();
    assert_eq!(checkpoint.layers(), ["model/bn"]);
    for path in ["model/bn", "model.bn", "model/bn/"] {
        let state = checkpoint.layer(path).unwrap();
        assert_eq!((state.weight, state.bias), (Some(vec![1.0; CHANNELS]), None));
        assert_eq!(state.running_var, Some(vec![3.0; CHANNELS]));
    }
}

#[test]
fn a_table_of_the_caller_is_tried_beside_the_others_or_alone() {
    let mine = Naming {
        framework: "Caffe2".into(),
        weight: Some("{}_s".into()),
        bias: Some("{}_b".into()),
        running_mean: Some("{}_rm".into()),
        running_var: Some("{}_riv".into()),
        num_batches_tracked: Some("{}_steps".into()),
        counter: Counter::F32,
        format: None,
    };
    let mut checkpoint = written(mine.clone(), "conv1_bn");
    let names = ["b", "riv", "rm", "s", "steps"].map(|name| format!("conv1_bn_{name}"));
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), names);
    assert_eq!(checkpoint.layer("conv1_bn").unwrap(), state(2.0));
    let bytes = checkpoint.to_bytes().unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.tensor("conv1_bn_steps").unwrap().dtype(), Dtype::F32);
    assert_eq!(read.tensor("conv1_bn_steps").unwrap().data(), 7f32.to_le_bytes());

    checkpoint = checkpoint.with_namings(Naming::known());
    checkpoint.layer("conv1_bn").unwrap_err();
    let tables = [mine].into_iter().chain(Naming::known());
    checkpoint = checkpoint.with_namings(tables);
    assert_eq!(checkpoint.layer("conv1_bn").unwrap(), state(2.0));
    // A table without a name says so.
    let nameless = Naming { bias: None, ..Naming::TORCH };
    let error =
        Checkpoint::new().with_namings([nameless]).set_layer("bn", &state(1.0)).unwrap_err();
    assert_eq!(error, StateError::NoName { framework: "PyTorch".into(), tensor: "bias" });
}

#[test]
fn numbers_are_written_all_or_not_at_all() {
    let mut checkpoint = Checkpoint::new().with_namings([Naming::KERAS_NUMBERED]);
    let mut without = state(1.0);
    without.weight = None;
    let error = checkpoint.set_layer("bn", &without).unwrap_err().to_string();
    let expected = "weight of the state is missing; found: bias, running_mean, running_var";
    assert!(error.starts_with(expected), "{error}");
    assert_eq!(checkpoint.names().count(), 0);
}

#[test]
fn names_that_differ_in_separators_alone_are_two() {
    let tensors = [vectors("a.bn"), vectors("a/bn")].concat();
    let mut checkpoint = Checkpoint::from_bytes(file(&tensors)).unwrap();
    let mut without = state(1.0);
    without.bias = None;
    checkpoint.set_layer("a.bn", &without).unwrap();
    assert!(!checkpoint.names().any(|name| name == "a.bn.bias"));
    assert_eq!(checkpoint.layer("a.bn").unwrap().bias, None);
    checkpoint.set_layer("a.bn", &without).unwrap();
    let other = checkpoint.layer("a/bn").unwrap();
    assert_eq!(other.bias, Some(vec![0.25, 0.0, 1.0]));
}

#[test]
fn numbers_that_are_not_all_there_are_refused_not_shifted() {
    let number = |n: usize| vector(&format!("layers/bn/vars/{n}"), &[n as f32; CHANNELS]);
    let three = file(&[number(0), number(1), number(2)]);
    let checkpoint = Checkpoint::from_bytes(three).unwrap();
    let error = checkpoint.layer("layers/bn").unwrap_err().to_string();
    assert!(error.starts_with("layers/bn/vars/3 is missing"), "{error}");
    // A layer without beta has a table in which the others move up.
    let no_beta = Naming {
        bias: None,
        running_mean: Some("{}/vars/1".into()),
        running_var: Some("{}/vars/2".into()),
        ..Naming::KERAS_NUMBERED
    };
    let state = checkpoint.with_namings([no_beta]).layer("layers/bn").unwrap();
    assert_eq!((state.bias, state.running_var), (None, Some(vec![2.0; CHANNELS])));
}
