//! Files of whole models: many layers in and out, updates, and what a crash leaves.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use syncbn::error::StateError;
use syncbn::state::{Checkpoint, Naming};

use super::*;

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_update_keeps_every_other_tensor_byte_for_byte_and_their_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut tensors = vectors("a.bn");
    // Types of every size, odd shapes, and bytes that are no number.
    tensors.push(raw("a.conv", Dtype::F64, &[2, 1], (0..16).collect()));
    tensors.push(raw("flags", Dtype::BOOL, &[3], vec![1, 0, 1]));
    tensors.push(raw("half", Dtype::BF16, &[0, 4], vec![]));
    tensors.push(raw("step", Dtype::U8, &[], vec![255]));
    tensors.push(raw("a.bnx.weight", Dtype::F16, &[1], vec![1, 2]));
    fs::write(&path, file(&tensors)).unwrap();

    Checkpoint::update(&path, [("a.bn", state(5.0)), ("b/bn", state(6.0))]).unwrap();
    Checkpoint::update(&path, [("c.bn", &state(8.0))]).unwrap();
    assert_eq!(names_in(folder.path()), ["model.safetensors"]);
    let bytes = fs::read(&path).unwrap();
    let found = SafeTensors::deserialize(&bytes).unwrap();
    for (name, dtype, shape, data) in &tensors[4..] {
        let tensor = found.tensor(name).unwrap();
        assert_eq!(
            (tensor.dtype(), tensor.shape(), tensor.data()),
            (*dtype, &shape[..], &data[..])
        );
    }
    // Each value lies where its size allows a program to map it.
    for (name, tensor) in found.tensors() {
        let at = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(at * 8 % tensor.dtype().bitsize(), 0, "{name}");
    }
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.layers(), ["a.bn", "b/bn", "c.bn"]);
    for (layer, expected) in [("a.bn", 5.0), ("b/bn", 6.0), ("c.bn", 8.0)] {
        assert_eq!(checkpoint.layer(layer).unwrap(), state(expected), "{layer}");
    }
    assert_eq!(checkpoint.names().count(), 5 + 3 * 5);
}

#[test]
fn a_tensor_of_another_layer_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let weight = raw("fc.weight", Dtype::F32, &[3, 2], vec![1; 24]);
    fs::write(&path, file(&[weight])).unwrap();
    let before = fs::read(&path).unwrap();
    let error = Checkpoint::update(&path, [("fc", state(5.0))]).unwrap_err();
    let expected = StateError::Rank { name: "fc.weight".to_owned(), found: vec![3, 2] };
    assert_eq!(error, expected);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_new_layer_has_the_names_of_those_of_the_file() {
    let mut checkpoint = Checkpoint::new().with_namings([Naming::KERAS]);
    checkpoint.set_layer("a/bn", &state(1.0)).unwrap();
    let mut checkpoint = Checkpoint::from_bytes(checkpoint.to_bytes().unwrap()).unwrap();
    checkpoint.set_layer("b/bn", &state(2.0)).unwrap();
    let names: Vec<&str> = checkpoint.names().filter(|name| name.starts_with('b')).collect();
    assert_eq!(names, ["b/bn/beta", "b/bn/gamma", "b/bn/moving_mean", "b/bn/moving_variance"]);
    // Two vectors of something else are not the file's way.
    let tensors =
        [vectors("b"), vec![vector("a.mean", &[0.0; 3]), vector("a.var", &[1.0; 3])], vectors("d")];
    let mut mixed = Checkpoint::from_bytes(file(&tensors.concat())).unwrap();
    mixed.set_layer("c", &state(3.0)).unwrap();
    assert!(mixed.names().any(|name| name == "c.running_mean"));
    // The caller's choice stands.
    let mut checkpoint = checkpoint.with_namings([Naming::TORCH, Naming::KERAS]);
    checkpoint.set_layer("c", &state(3.0)).unwrap();
    assert!(checkpoint.names().any(|name| name == "c.running_mean"));
}

/// MindSpore's reader refuses another order.
#[test]
fn the_list_of_tensors_has_the_order_of_their_data() {
    let mut checkpoint = Checkpoint::new();
    for path in ["b\"n", "a"] {
        checkpoint.set_layer(path, &state(1.0)).unwrap();
    }
    let bytes = checkpoint.to_bytes().unwrap();
    let header_bytes = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header = str::from_utf8(&bytes[8..8 + header_bytes]).unwrap();
    let starts: Vec<usize> = header
        .split("\"data_offsets\":[")
        .skip(1)
        .map(|rest| rest.split(',').next().unwrap().parse().unwrap())
        .collect();
    assert!(starts.len() == 10 && starts.is_sorted(), "{starts:?}");
    assert!(header.find("a.num_batches_tracked") < header.find("a.bias"), "{header}");
    let read = Checkpoint::from_bytes(bytes).unwrap();
    assert_eq!(read.layer("b\"n").unwrap(), state(1.0));
}

#[test]
fn a_layer_of_a_file_keeps_its_names_and_loses_what_the_state_has_not() {
    let mut checkpoint = Checkpoint::new().with_namings([Naming::BURN]);
    checkpoint.set_layer("bn", &state(1.0)).unwrap();
    let bytes = checkpoint.to_bytes().unwrap();
    let mut checkpoint = Checkpoint::from_bytes(bytes).unwrap();
    let mut bare = state(3.0);
    (bare.weight, bare.bias) = (None, None);
    checkpoint.set_layer("bn", &bare).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["bn.running_mean", "bn.running_var"]);
    checkpoint.set_layer("new", &state(3.0)).unwrap();
    assert!(checkpoint.names().any(|name| name == "new.num_batches_tracked"));
}

#[test]
fn a_failed_save_leaves_the_old_file_and_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let [source, target] = ["source", "target"].map(|name| folder.path().join(name));
    let values = [1.0; 4096];
    let mut tensors = vectors("bn");
    tensors.push(vector("z", &values));
    fs::write(&source, file(&tensors)).unwrap();
    Checkpoint::update(&target, [("bn", state(1.0))]).unwrap();
    let before = fs::read(&target).unwrap();
    let checkpoint = Checkpoint::open(&source).unwrap();
    // The disk under the source loses its end while it is copied.
    fs::OpenOptions::new().write(true).open(&source).unwrap().set_len(9000).unwrap();
    let error = checkpoint.save(&target).unwrap_err();
    assert!(matches!(error, StateError::File { .. }), "{error:?}");
    assert_eq!(fs::read(&target).unwrap(), before);
    assert_eq!(names_in(folder.path()), ["source", "target"]);
    // A file that is not whole is none; and so a update of it changes nothing.
    let error = Checkpoint::update(&source, [("bn", state(1.0))]).unwrap_err();
    assert!(matches!(error, StateError::Format { .. }), "{error:?}");
    assert_eq!(fs::metadata(&source).unwrap().len(), 9000);
}

#[test]
fn a_checkpoint_reads_the_file_that_it_opened_also_after_an_update() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    Checkpoint::update(&path, [("bn", state(1.0))]).unwrap();
    let opened = Checkpoint::open(&path).unwrap();
    Checkpoint::update(&path, [("bn", state(2.0))]).unwrap();
    assert_eq!(opened.layer("bn").unwrap(), state(1.0));
    assert_eq!(Checkpoint::open(&path).unwrap().layer("bn").unwrap(), state(2.0));
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link_and_permissions_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let [path, link] = ["model", "latest"].map(|name| folder.path().join(name));
    Checkpoint::update(&path, [("bn", state(1.0))]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&path, &link).unwrap();
    Checkpoint::update(&link, [("bn", state(2.0))]).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(Checkpoint::open(&path).unwrap().layer("bn").unwrap(), state(2.0));
}

#[test]
fn a_thousand_layers_of_a_file_take_far_less_than_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut tensors = Vec::new();
    for index in 0..1000 {
        tensors.extend(vectors(&format!("layer{index}.bn")));
        let count = format!("layer{index}.bn.num_batches_tracked");
        tensors.push(raw(&count, Dtype::I64, &[], 7i64.to_le_bytes().to_vec()));
        tensors.push(vector(&format!("layer{index}.conv.weight"), &[0.5; 64]));
    }
    fs::write(&path, file(&tensors)).unwrap();
    let start = Instant::now();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let layers = checkpoint.layers();
    let states: Vec<_> =
        layers.iter().map(|layer| (layer, checkpoint.layer(layer).unwrap())).collect();
    let read = start.elapsed();
    let start = Instant::now();
    Checkpoint::update(&path, states).unwrap();
    let wrote = start.elapsed();
    println!("1000 layers of 6000 tensors: read in {read:?}, updated in {wrote:?}");
    assert_eq!(layers.len(), 1000);
    assert_eq!(Checkpoint::open(&path).unwrap().names().count(), 6000);
    // One list of tensors per layer took 7.8 s. The bound leaves room for a busy machine.
    assert!(read < Duration::from_secs(2), "{read:?}");
}
