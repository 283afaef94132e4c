//! Whole models that frameworks saved with their own tools, and what they evaluate to there:
//! `golden/checkpoints/README.md` says how the files were made.

use std::path::PathBuf;

use safetensors::SafeTensors;
use syncbn::state::{Checkpoint, LoadOptions, Naming};

use super::*;

/// How far two careful evaluations in f32 may be apart, relative to |α·x| + |α·mean| + |bias| with
/// α = weight / √(var + eps): at most 8 roundings of half an ulp on each side, of terms no larger
/// (`tests/it/state/pytorch.rs` counts them).
const TOLERANCE: f64 = 16.0 / (1u64 << 24) as f64;

/// The file, its table of names, and the paths of `bn1` and `bn2` in it.
fn models() -> Vec<(&'static str, Naming, [&'static str; 2])> {
    let plain = ["bn1", "bn2"];
    vec![
        ("torch", Naming::TORCH, plain),
        ("torch_data_parallel", Naming::TORCH, ["module.bn1", "module.bn2"]),
        ("mindspore", Naming::MINDSPORE, plain),
        ("mindspore_mint", Naming::MINDSPORE_MINT, plain),
        ("keras", Naming::KERAS, plain),
        (
            "keras_numbered",
            Naming::KERAS_NUMBERED,
            ["layers/batch_normalization", "layers/batch_normalization_1"],
        ),
        ("flax", Naming::FLAX, plain),
        ("flax_nnx", Naming::FLAX_NNX, plain),
        ("paddle", Naming::PADDLE, plain),
        ("onnx", Naming::ONNX, plain),
        ("burn", Naming::BURN, plain),
    ]
}

fn read(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints");
    std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap()
}

/// An activation of the file, (N, C, H, W).
fn activation(file: &[u8], name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = SafeTensors::deserialize(file).unwrap();
    let tensor = file.tensor(name).unwrap();
    let values = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    (tensor.shape().to_vec(), values.collect())
}

fn eps_of(layer: &str) -> f64 {
    if layer == "bn1" { 1e-5 } else { 1e-3 }
}

/// The worst difference from the framework's output as a share of the tolerance, and in ulp of the
/// largest |y|.
fn compare(file: &[u8], layer: &str, state: &StateDict, eps: f64) -> (f64, f64) {
    let (dims, x) = activation(file, &format!("eval.{layer}.x"));
    let (_, expected) = activation(file, &format!("eval.{layer}.y"));
    let mut bn = self::layer(BatchNormConfig::torch(dims[1]).with_eps(eps));
    bn.load_state(state, &LoadOptions::default()).unwrap();
    let input = Device::host().upload(&dims, &x).unwrap();
    let y = block_on(block_on(bn.forward_eval(&input)).unwrap().output.to_vec()).unwrap();
    let positions: usize = dims[2..].iter().product();
    let of =
        |values: &Option<Vec<f32>>, channel: usize| f64::from(values.as_ref().unwrap()[channel]);
    let largest = expected.iter().fold(0f32, |largest, y| largest.max(y.abs()));
    let ulp = f64::from(largest.next_up() - largest);
    let mut share = 0f64;
    let mut ulps = 0f64;
    for (index, (found, expected)) in y.iter().zip(&expected).enumerate() {
        let c = index / positions % dims[1];
        let alpha = of(&state.weight, c).abs() / (of(&state.running_var, c) + eps).sqrt();
        let terms = alpha * (f64::from(x[index]).abs() + of(&state.running_mean, c).abs());
        let size = terms + of(&state.bias, c).abs();
        let difference = (f64::from(*found) - f64::from(*expected)).abs();
        share = share.max(difference / (TOLERANCE * size));
        ulps = ulps.max(difference / ulp);
    }
    (share, ulps)
}

#[test]
fn every_framework_s_model_evaluates_as_it_does_there() {
    for (name, _, paths) in models() {
        let file = read(name);
        let checkpoint = Checkpoint::from_bytes(file.clone()).unwrap();
        assert_eq!(checkpoint.layers(), paths, "{name}");
        for (layer, path) in ["bn1", "bn2"].into_iter().zip(paths) {
            let state = checkpoint.layer(path).unwrap();
            let (share, ulps) = compare(&file, layer, &state, eps_of(layer));
            println!("{name} {layer}: {share:.3} of the tolerance, {ulps:.2} ulp of the largest");
            assert!(share <= 1.0, "{name} {layer}: {share}");
            assert!(ulps <= 2.0, "{name} {layer}: {ulps} ulp");
            // Another eps, as of the other layer, is told apart.
            let (share, _) = compare(&file, layer, &state, 1.01e-3);
            assert!(share > 1.0, "{name} {layer}: {share}");
        }
    }
}

#[test]
fn a_layer_written_back_is_the_framework_s_tensor_bit_for_bit() {
    for (name, naming, paths) in models() {
        let file = read(name);
        let checkpoint = Checkpoint::from_bytes(file.clone()).unwrap();
        let original = SafeTensors::deserialize(&file).unwrap();
        let mut written = Checkpoint::new().with_namings([naming]);
        for path in paths {
            written.set_layer(path, &checkpoint.layer(path).unwrap()).unwrap();
        }
        let bytes = written.to_bytes().unwrap();
        let again = SafeTensors::deserialize(&bytes).unwrap();
        let count = if name.contains("torch") || name.contains("mint") { 10 } else { 8 };
        assert_eq!(again.len(), count, "{name}");
        for (tensor, found) in again.tensors() {
            let expected = original.tensor(&tensor).unwrap();
            assert_eq!(
                (found.dtype(), found.shape(), found.data()),
                (expected.dtype(), expected.shape(), expected.data()),
                "{name} {tensor}"
            );
        }
    }
}
