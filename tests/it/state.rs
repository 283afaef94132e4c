//! The state of a layer: out of one, through safetensors under both namings, and into another.
//!
//! `state/errors.rs` provokes every error, `state/pytorch.rs` reads files that PyTorch wrote,
//! `state/sharing.rs` takes layers apart and puts them together.

mod errors;
mod pytorch;
mod sharing;

use crate::common;

use std::collections::BTreeMap;

use common::*;
use pollster::block_on;
use safetensors::{Dtype, SafeTensors};
use syncbn::{
    BatchNormConfig, SyncBatchNorm,
    config::Momentum,
    error::StateError,
    state::{Checkpoint, LoadOptions, Naming, StateDict},
};

const CHANNELS: usize = 5;

/// A layer with random parameters that has trained two steps.
fn trained(config: BatchNormConfig, kind: Kind, seed: u64) -> SyncBatchNorm {
    let mut random = Random::new(seed);
    let mut bn = SyncBatchNorm::new(config, kind.devices(2)).unwrap();
    let parameters = Parameters::random(CHANNELS, &mut random);
    let weight = bn.config().weight;
    let bias = bn.config().bias;
    bn.set_parameters(weight.then_some(&parameters.weight), bias.then_some(&parameters.bias))
        .unwrap();
    for _ in 0..2 {
        let batches =
            [[3, CHANNELS, 4], [2, CHANNELS, 7]].map(|dims| Batch::random(&dims, &mut random));
        block_on(bn.forward_train(&upload(&bn, &batches))).unwrap();
    }
    bn
}

fn torch() -> BatchNormConfig {
    BatchNormConfig::torch(CHANNELS)
}

fn state_of(bn: &SyncBatchNorm) -> StateDict {
    block_on(bn.state()).unwrap()
}

/// What the layer computes in evaluation, and the running statistics after one more training step:
/// all that depends on its state.
fn behaviour(bn: &mut SyncBatchNorm) -> (Vec<Vec<u32>>, Vec<u32>, Option<u64>) {
    let mut random = Random::new(99);
    let batches: Vec<Batch> =
        (0..bn.devices().len()).map(|_| Batch::random(&[2, CHANNELS, 6], &mut random)).collect();
    let inputs = upload(bn, &batches);
    let y = bits(&read(&block_on(bn.forward_eval(&inputs)).unwrap().output));
    let before = bn.running_stats();
    block_on(bn.forward_train(&inputs)).unwrap();
    let running = bn.running_stats();
    let after = running
        .iter()
        .flat_map(|running| running.mean.iter().chain(&running.var))
        .map(|x| x.to_bits());
    let after = (y, after.collect(), running.as_ref().map(|running| running.num_batches_tracked));
    if let Some(before) = before {
        bn.set_running_stats(before).unwrap();
    }
    after
}

/// A file with the state of one layer.
fn written(state: &StateDict, naming: Naming, path: &str) -> Vec<u8> {
    let mut checkpoint = Checkpoint::new().with_namings([naming]);
    checkpoint.set_layer(path, state).unwrap();
    checkpoint.to_bytes().unwrap()
}

/// The state of a layer with this configuration in a file.
fn read_as(
    bytes: &[u8],
    path: &str,
    config: &BatchNormConfig,
    options: &LoadOptions,
) -> Result<StateDict, StateError> {
    let state = Checkpoint::from_bytes(bytes)?.layer(path)?;
    state.check(config, options).map(|_| state)
}

fn without_counter(state: &StateDict) -> StateDict {
    let mut state = state.clone();
    state.num_batches_tracked = None;
    state
}

/// Name, type and shape of everything in a file.
fn layout(bytes: &[u8]) -> BTreeMap<String, (Dtype, Vec<usize>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, tensor)| (name, (tensor.dtype(), tensor.shape().to_vec())))
        .collect()
}

/// A file with these tensors: name, type, shape, bytes.
fn file(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let view = |(name, dtype, shape, bytes): &(&str, Dtype, Vec<usize>, Vec<u8>)| {
        let bytes = bytes.clone();
        let view =
            safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes.leak()).unwrap();
        (name.to_string(), view)
    };
    safetensors::serialize(tensors.iter().map(view), None).unwrap()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_state_taken_into_a_new_layer_gives_the_same_results() {
    let configs = [
        torch(),
        torch().with_affine(false),
        torch().with_bias(false),
        torch().with_track_running_stats(false),
        torch().with_momentum(Momentum::Cumulative),
        BatchNormConfig::mindspore(CHANNELS).with_freeze_affine(true),
    ];
    for kind in Kind::ALL {
        for config in &configs {
            let mut bn = trained(config.clone(), kind, 1);
            let state = state_of(&bn);
            assert_eq!(
                (state.weight.is_some(), state.bias.is_some()),
                (config.weight, config.bias)
            );
            assert_eq!(state.running_mean.is_some(), config.track_running_stats);
            assert_eq!(state.num_batches_tracked, config.track_running_stats.then_some(2));
            // Devices and their number may be others; only those of the same kind give the same
            // bits.
            let mut other = SyncBatchNorm::new(config.clone(), kind.devices(2)).unwrap();
            other.load_state(&state, &LoadOptions::default()).unwrap();
            assert_eq!(state_of(&other), state);
            assert_eq!(behaviour(&mut other), behaviour(&mut bn), "{kind:?}, {config:?}");
            let mut wider = SyncBatchNorm::new(config.clone(), Kind::Mixed.devices(3)).unwrap();
            wider.load_state(&state, &LoadOptions::default()).unwrap();
            assert_eq!(state_of(&wider), state);
        }
    }
}

#[test]
fn the_same_parameters_lie_on_every_rank_after_loading() {
    for kind in Kind::ALL {
        let state = state_of(&trained(torch(), kind, 2));
        let mut bn = SyncBatchNorm::new(torch(), kind.devices(3)).unwrap();
        bn.load_state(&state, &LoadOptions::default()).unwrap();
        for rank in 0..3 {
            let [weight, bias] = [bn.weight(rank), bn.bias(rank)]
                .map(|tensor| block_on(tensor.unwrap().to_vec()).unwrap());
            assert_eq!(
                (Some(weight), Some(bias)),
                (state.weight.clone(), state.bias.clone()),
                "{kind:?}, {rank}"
            );
        }
        assert!([bn.weight(3), bn.bias(3)].iter().all(Option::is_none));
    }
}

#[test]
fn files_have_the_names_types_and_shapes_of_their_convention() {
    let state = state_of(&trained(torch(), Kind::Host, 3));
    for (prefix, full) in
        [("", ""), ("layer1.0.bn1", "layer1.0.bn1."), ("layer1.0.bn1.", "layer1.0.bn1.")]
    {
        let vector = |name: &str| (format!("{full}{name}"), (Dtype::F32, vec![CHANNELS]));
        let found = layout(&written(&state, Naming::TORCH, prefix));
        let mut expected: BTreeMap<_, _> =
            ["weight", "bias", "running_mean", "running_var"].map(vector).into();
        expected.insert(format!("{full}num_batches_tracked"), (Dtype::I64, vec![]));
        assert_eq!(found, expected);
        let found = layout(&written(&state, Naming::MINDSPORE, prefix));
        assert_eq!(found, ["gamma", "beta", "moving_mean", "moving_variance"].map(vector).into());
    }
}

#[test]
fn both_namings_round_trip_through_files_with_any_prefix() {
    let folder = tempfile::tempdir().unwrap();
    for config in [torch(), torch().with_affine(false), torch().with_bias(false)] {
        let state = state_of(&trained(config.clone(), Kind::Host, 4));
        for (written, read) in
            [("", ""), ("bn", "bn"), ("bn", "bn."), ("bn.", "bn"), ("a.0.bn.", "a.0.bn.")]
        {
            for naming in [Naming::TORCH, Naming::MINDSPORE] {
                let path = folder.path().join("state.safetensors");
                let bytes = self::written(&state, naming.clone(), written);
                std::fs::write(&path, bytes).unwrap();
                // MindSpore's names have none for the counter.
                let is_torch = naming == Naming::TORCH;
                let expected = if is_torch { state.clone() } else { without_counter(&state) };
                for asked in [Naming::known(), vec![naming.clone()]] {
                    let checkpoint = Checkpoint::open(&path).unwrap().with_namings(asked);
                    let found = checkpoint.layer(read).unwrap();
                    found.check(&config, &LoadOptions::default()).unwrap();
                    assert_eq!(found, expected, "{naming:?}, {written:?} read as {read:?}");
                }
            }
        }
    }
}

#[test]
fn a_file_without_the_counter_leaves_the_layer_s_own() {
    for kind in Kind::ALL {
        let state = state_of(&trained(torch(), kind, 5));
        let bytes = written(&state, Naming::MINDSPORE, "");
        let loaded = read_as(&bytes, "", &torch(), &LoadOptions::default()).unwrap();
        let mut bn = SyncBatchNorm::new(torch(), kind.devices(2)).unwrap();
        let mut running = bn.running_stats().unwrap();
        running.num_batches_tracked = 41;
        bn.set_running_stats(running).unwrap();
        bn.load_state(&loaded, &LoadOptions::default()).unwrap();
        let mut expected = state;
        expected.num_batches_tracked = Some(41);
        assert_eq!(state_of(&bn), expected);
    }
}

#[test]
fn the_naming_is_found_out_from_the_names_behind_the_prefix() {
    let a = state_of(&trained(torch(), Kind::Host, 6));
    let b = state_of(&trained(torch(), Kind::Host, 7));
    // Two layers in one file, each under another convention, beside tensors of no batch
    // normalization.
    let mut tensors = Vec::new();
    let bytes = [written(&a, Naming::TORCH, "a"), written(&b, Naming::MINDSPORE, "b")];
    for bytes in &bytes {
        for (name, tensor) in SafeTensors::deserialize(bytes).unwrap().tensors() {
            tensors.push((
                &*name.leak(),
                tensor.dtype(),
                tensor.shape().to_vec(),
                tensor.data().to_vec(),
            ));
        }
    }
    tensors.push(("a.conv.weight", Dtype::F32, vec![2, 1], f32s(&[1.0, 2.0])));
    tensors.push(("gamma", Dtype::F16, vec![3], vec![0; 6]));
    let both = file(&tensors);
    let read = |naming: Option<Naming>, path: &str| {
        let checkpoint = Checkpoint::from_bytes(both.clone()).unwrap();
        let namings = naming.map_or_else(Naming::known, |naming| vec![naming]);
        checkpoint.with_namings(namings).layer(path)
    };
    assert_eq!(read(None, "a").unwrap(), a);
    assert_eq!(read(None, "b").unwrap(), without_counter(&b));
    // Asked for the other one, nothing is found.
    read(Some(Naming::MINDSPORE), "a").unwrap_err();
    read(Some(Naming::TORCH), "b").unwrap_err();
}

#[test]
fn a_run_that_diverged_can_be_saved_and_is_loaded_only_on_request() {
    let accepting = LoadOptions { allow_non_finite: true, ..LoadOptions::default() };
    for kind in Kind::ALL {
        let mut bn = trained(torch(), kind, 8);
        let mut batches = [
            Batch::random(&[2, CHANNELS], &mut Random::new(9)),
            Batch::random(&[3, CHANNELS], &mut Random::new(10)),
        ];
        batches[1].values[2] = f32::INFINITY;
        block_on(bn.forward_train(&upload(&bn, &batches))).unwrap();
        let state = state_of(&bn);
        assert!(
            state.running_mean.as_ref().unwrap()[2].is_nan()
                && state.running_var.as_ref().unwrap()[2].is_nan()
        );
        for naming in [Naming::TORCH, Naming::MINDSPORE] {
            let bytes = written(&state, naming.clone(), "bn");
            let name = if naming == Naming::TORCH { "bn.running_mean" } else { "bn.moving_mean" };
            let error = read_as(&bytes, "bn", &torch(), &LoadOptions::default()).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains(&format!("{name}[2] is NaN"))
                    && message.contains("allow_non_finite"),
                "{message}"
            );
            let loaded = read_as(&bytes, "bn", &torch(), &accepting).unwrap();
            let mut other = SyncBatchNorm::new(torch(), kind.devices(2)).unwrap();
            let fresh = state_of(&other);
            other.load_state(&loaded, &LoadOptions::default()).unwrap_err();
            assert_eq!(state_of(&other), fresh);
            other.load_state(&loaded, &accepting).unwrap();
            assert_eq!(behaviour(&mut other).0, behaviour(&mut bn).0, "{kind:?}, {naming:?}");
        }
    }
}
