//! Checkpoints of other programs' files, and what inference needs: no GPU, and compiled without
//! wgpu by `cargo test --no-default-features --features host,safetensors,serde --test checkpoints`.
//!
//! `types` and `strict` take in what files lack or hold in another type, `names` finds layers,
//! `files` writes, `frameworks` reads what frameworks have written, `fold` is for inference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(all(feature = "host", feature = "safetensors"))]

mod files;
mod fold;
mod frameworks;
mod names;
mod strict;
mod types;

use pollster::block_on;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use syncbn::state::StateDict;
use syncbn::{BatchNormConfig, Device, SyncBatchNorm};

/// C.
const CHANNELS: usize = 3;

/// Name, type, shape and bytes of a tensor.
type RawTensor = (String, Dtype, Vec<usize>, Vec<u8>);

fn raw(name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> RawTensor {
    (name.to_owned(), dtype, shape.to_vec(), bytes)
}

fn vector(name: &str, values: &[f32]) -> RawTensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    raw(name, Dtype::F32, &[values.len()], bytes)
}

fn file(tensors: &[RawTensor]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// The vectors of a layer under PyTorch's names.
fn vectors(path: &str) -> Vec<RawTensor> {
    let names = ["weight", "bias", "running_mean", "running_var"];
    let values = [[1.0, 0.5, -2.0], [0.25, 0.0, 1.0], [3.0, -1.0, 0.0], [4.0, 0.5, 1.0]];
    names.iter().zip(values).map(|(name, of)| vector(&format!("{path}.{name}"), &of)).collect()
}

fn state(first: f32) -> StateDict {
    let mut state = StateDict::default();
    state.weight = Some(vec![first, 0.5, -2.0]);
    state.bias = Some(vec![0.25, 0.0, first]);
    state.running_mean = Some(vec![first, -1.0, 0.0]);
    state.running_var = Some(vec![first.abs(), 0.5, 1.0]);
    state.num_batches_tracked = Some(7);
    state
}

fn layer(config: BatchNormConfig) -> SyncBatchNorm {
    SyncBatchNorm::new(config, [Device::host()]).unwrap()
}

fn state_of(bn: &SyncBatchNorm) -> StateDict {
    block_on(bn.state()).unwrap()
}
