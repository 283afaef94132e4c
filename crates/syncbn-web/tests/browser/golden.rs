//! The golden cases of other programs, with the tolerances that are stored beside them.

use std::collections::BTreeMap;

use half::{bf16, f16};
use include_dir::{Dir, include_dir};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use syncbn::config::{BatchNormConfig, Momentum};
use syncbn::low_level::Epilogue;
use syncbn::stats::RunningStats;
use syncbn::{Backward, Device, Forward, Layout, SyncBatchNorm, Tensor};
use wasm_bindgen_test::{console_log, wasm_bindgen_test};

use super::gpu;

static GOLDEN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../tests/golden");
/// Ranks of the largest case.
const RANKS: usize = 8;

#[derive(Deserialize)]
struct Manifest {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    file: String,
    channels: usize,
    channel_axis: usize,
    groups: Vec<Vec<usize>>,
    dtype: String,
    modes: Vec<String>,
    repeat_same_step: usize,
    eps: f64,
    momentum: Option<f64>,
    affine: bool,
    has_bias: bool,
    track_running_stats: bool,
    fused: Option<String>,
    nonfinite: bool,
}

/// The stored tensors of a case.
struct Store<'a> {
    file: SafeTensors<'a>,
}

impl Store<'_> {
    fn get(&self, name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
        let view = self.file.tensor(name).ok()?;
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F64 => wide(data, f64::from_le_bytes),
            Dtype::F32 => wide(data, |bytes| f32::from_le_bytes(bytes).into()),
            Dtype::F16 => wide(data, |bytes| f16::from_le_bytes(bytes).into()),
            Dtype::BF16 => wide(data, |bytes| bf16::from_le_bytes(bytes).into()),
            Dtype::I64 => wide(data, |bytes| i64::from_le_bytes(bytes) as f64),
            other => panic!("{name} is stored as {other:?}"),
        };
        Some((view.shape().to_vec(), values))
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.get(name).unwrap_or_else(|| panic!("{name} is missing")).1
    }

    fn f32(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.get(name)?.1.into_iter().map(|value| value as f32).collect())
    }
}

fn wide<const BYTES: usize>(data: &[u8], number: impl Fn([u8; BYTES]) -> f64) -> Vec<f64> {
    data.as_chunks().0.iter().map(|&bytes| number(bytes)).collect()
}

/// A tensor of a case on a device.
fn upload(case: &Case, store: &Store<'_>, device: &Device, name: &str) -> Tensor {
    let (dims, values) = store.get(name).unwrap_or_else(|| panic!("{name} is missing"));
    let tensor = match case.dtype.as_str() {
        "f32" => device.upload(&dims, &values.iter().map(|&v| v as f32).collect::<Vec<_>>()),
        "f16" => {
            device.upload(&dims, &values.iter().map(|&v| f16::from_f64(v)).collect::<Vec<_>>())
        }
        "bf16" => {
            device.upload(&dims, &values.iter().map(|&v| bf16::from_f64(v)).collect::<Vec<_>>())
        }
        other => panic!("{other} is no storage type"),
    };
    let layout = if case.channel_axis == 1 { Layout::ChannelsFirst } else { Layout::ChannelsLast };
    tensor.unwrap().with_layout(layout)
}

/// Totals of the comparisons.
#[derive(Default)]
struct Seen {
    values: usize,
    /// The worst error as a share of its tolerance.
    worst: f64,
}

impl Seen {
    /// Compares values whose channel is found from their index.
    fn compare(
        &mut self,
        what: &str,
        found: &[f64],
        expected: &[f64],
        tolerance: &[f64],
        channel: impl Fn(usize) -> usize,
    ) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let allowed = tolerance[channel(i)];
            self.values += 1;
            if !expected.is_finite() || !allowed.is_finite() {
                // A running mean of infinities may be either.
                assert!(!found.is_finite(), "{what}[{i}] is {found}, expected {expected}");
                continue;
            }
            let share = (found - expected).abs() / allowed.max(f64::MIN_POSITIVE);
            assert!(share <= 1.0, "{what}[{i}] is {found}, expected {expected} within {allowed}");
            self.worst = self.worst.max(share);
        }
    }
}

fn config(case: &Case) -> BatchNormConfig {
    let epilogue = match case.fused.as_deref() {
        None => Epilogue::NONE,
        Some("relu") => Epilogue::RELU,
        Some("add") => Epilogue::ADD,
        Some("add_relu") => Epilogue::ADD_RELU,
        Some(other) => panic!("{other} is no epilogue"),
    };
    BatchNormConfig::torch(case.channels)
        .with_eps(case.eps)
        .with_momentum(case.momentum.map_or(Momentum::Cumulative, Momentum::NewWeight))
        .with_weight(case.affine)
        .with_bias(case.affine && case.has_bias)
        .with_track_running_stats(case.track_running_stats)
        .with_residual(epilogue.residual)
        .with_activation(epilogue.activation)
}

async fn read(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec().await.unwrap().into_iter().map(f64::from).collect()
}

/// Every step of one group of a case.
async fn run_group(
    case: &Case,
    store: &Store<'_>,
    group: usize,
    devices: &[Device],
    seen: &mut Seen,
) {
    let ranks = &case.groups[group];
    let own: Vec<Device> = devices[..ranks.len()].to_vec();
    let mut bn = SyncBatchNorm::new(config(case), own.iter().cloned()).unwrap();
    let weight = store.f32("weight");
    let bias = store.f32("bias");
    let weight = weight.filter(|_| bn.config().weight);
    let bias = bias.filter(|_| bn.config().bias);
    bn.set_parameters(weight.as_deref(), bias.as_deref()).unwrap();
    if case.track_running_stats {
        let mut running = RunningStats::new(case.channels);
        running.mean = store.f32(&format!("g{group}.running_mean_0")).unwrap();
        running.var = store.f32(&format!("g{group}.running_var_0")).unwrap();
        running.num_batches_tracked = store.values("num_batches_tracked_0")[0] as u64;
        bn.set_running_stats(running).unwrap();
    }
    for (step, mode) in case.modes.iter().enumerate() {
        let trains = mode == "train";
        let before = bn.running_stats();
        for _ in 0..case.repeat_same_step.max(1) {
            run_step(case, store, group, &bn, step + 1, trains, seen).await;
        }
        if !trains {
            assert_eq!(bn.running_stats(), before, "{}: evaluation moves nothing", case.id);
            continue;
        }
        let Some(running) = bn.running_stats() else { continue };
        let at = format!("s{}.g{group}", step + 1);
        for (name, found) in [("running_mean", &running.mean), ("running_var", &running.var)] {
            let found: Vec<f64> = found.iter().copied().map(f64::from).collect();
            let expected = store.values(&format!("{at}.{name}"));
            let tolerance = store.values(&format!("{at}.tol_{name}"));
            seen.compare(&format!("{} {at}.{name}", case.id), &found, &expected, &tolerance, |c| c);
        }
    }
}

async fn run_step(
    case: &Case,
    store: &Store<'_>,
    group: usize,
    bn: &SyncBatchNorm,
    step: usize,
    trains: bool,
    seen: &mut Seen,
) {
    let ranks = &case.groups[group];
    let of = |name: &str| -> Vec<Tensor> {
        let named = ranks.iter().zip(bn.devices());
        named
            .map(|(rank, device)| upload(case, store, device, &format!("s{step}.r{rank}.{name}")))
            .collect()
    };
    let x = of("x");
    let dy = of("dy");
    let residual = bn.config().residual.then(|| of("z"));
    let mut request = Forward::of(&x);
    if let Some(residual) = &residual {
        request = request.residual(residual);
    }
    let forward = match trains {
        true => bn.forward_train(request).await.unwrap(),
        false => bn.forward_eval(request).await.unwrap(),
    };
    let mut request = Backward::of(&x, &dy);
    if let Some(residual) = residual.as_ref().filter(|_| forward.saved.needs_residual()) {
        request = request.residual(residual);
    }
    let backward = bn.backward(&forward.saved, request).await.unwrap();

    let lists = [
        ("y", Some(&forward.output)),
        ("dx", Some(&backward.input)),
        ("dz", backward.residual.as_ref()),
        ("dweight", backward.weight.as_ref()),
        ("dbias", backward.bias.as_ref()),
    ];
    for (name, tensors) in lists {
        let Some(tensors) = tensors else { continue };
        let tolerance = store.values(&format!("s{step}.g{group}.tol_{name}"));
        for (rank, tensor) in ranks.iter().zip(tensors) {
            let at = format!("s{step}.r{rank}.{name}");
            let Some((dims, expected)) = store.get(&at) else { panic!("{at} is missing") };
            let inner: usize = match dims.len() {
                1 => 1,
                _ => dims[case.channel_axis + 1..].iter().product(),
            };
            let channel = |i: usize| i / inner % case.channels;
            let what = format!("{} {at}", case.id);
            seen.compare(&what, &read(tensor).await, &expected, &tolerance, channel);
        }
    }
}

/// All cases over some devices, each of which is a rank.
async fn run(devices: &[Device]) {
    let manifest = GOLDEN.get_file("manifest.json").unwrap().contents();
    let manifest: Manifest = serde_json::from_slice(manifest).unwrap();
    assert!(manifest.cases.len() >= 79, "{} cases", manifest.cases.len());
    let mut seen = Seen::default();
    let mut kinds = BTreeMap::<String, usize>::new();
    for case in &manifest.cases {
        let bytes = GOLDEN.get_file(&case.file).unwrap().contents();
        let store = Store { file: SafeTensors::deserialize(bytes).unwrap() };
        let before = seen.values;
        for group in 0..case.groups.len() {
            run_group(case, &store, group, devices, &mut seen).await;
        }
        assert!(seen.values > before || case.nonfinite, "{} compares nothing", case.id);
        let layout = if case.channel_axis == 1 { "channels first" } else { "channels last" };
        for kind in case.modes.iter().map(String::as_str).chain([&*case.dtype, layout]) {
            *kinds.entry(kind.to_owned()).or_default() += seen.values - before;
        }
    }
    for kind in ["f32", "f16", "bf16", "channels first", "channels last", "train", "eval"] {
        assert!(kinds.get(kind).is_some_and(|&values| values > 0), "no value of {kind}: {kinds:?}");
    }
    let cases = manifest.cases.len();
    let Seen { values, worst } = seen;
    console_log!("{cases} golden cases, {values} values, worst {worst:.3} of its tolerance");
}

#[wasm_bindgen_test]
async fn golden_cases_hold_on_host_ranks() {
    run(&vec![Device::host(); RANKS]).await;
}

#[wasm_bindgen_test]
async fn golden_cases_hold_on_webgpu_devices() {
    let mut devices = Vec::new();
    for _ in 0..RANKS {
        devices.push(gpu().await);
    }
    run(&devices).await;
}

#[wasm_bindgen_test]
async fn golden_cases_hold_where_webgpu_devices_and_host_ranks_mix() {
    let mut devices = vec![Device::host(); RANKS];
    for rank in [0, 2, 3] {
        devices[rank] = gpu().await;
    }
    run(&devices).await;
}
