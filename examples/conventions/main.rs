//! How the conventions of PyTorch and MindSpore differ: every cell is read off a layer of this
//! crate that ran under the arguments of either, or is the error that they give. The last table
//! has the defaults of further layers.
//!
//! `cargo run --release --example conventions` prints tables in Markdown. The batch has one
//! channel: 4, 8 on rank 0 and 10, 14, 12, 12 on rank 1. `formulas` computes the results of others
//! from it.

mod checkpoints;
mod defaults;
mod edge_cases;

use pollster::block_on;
use syncbn::config::{MindSporeArguments, TorchArguments};
use syncbn::error::ConfigError;
use syncbn::state::Naming;
use syncbn::stats::RunningStats;
use syncbn::{Backward, BatchNormConfig, Device, Error, SyncBatchNorm, Tensor};

type Batch<'a> = [&'a [f32]; 2];
type Row = [String; 3];
/// A cell of the table, read off a layer.
type Look = fn(SyncBatchNorm, Naming) -> Result<String, Error>;

const BATCH: Batch<'static> = [&[4.0, 8.0], &[10.0, 14.0, 12.0, 12.0]];
/// Running statistics that no batch here has, so that they are recognized.
const RUNNING: [f32; 2] = [1.0, 25.0];

fn main() -> Result<(), Error> {
    let arguments = ["of this crate's layer", "with PyTorch's arguments", "with MindSpore's"];
    print("Momentum and eps", arguments, &momentum()?);
    print("Weight and bias", arguments, &affine()?);
    print("Which statistics normalize", arguments, &statistics()?);
    print("Initial values", arguments, &initial()?);
    print("Inputs and checkpoints", arguments, &checkpoints::rows()?);
    print("One value per channel, or none", arguments, &edge_cases::rows()?);
    defaults::print()
}

fn print(title: &str, header: [&str; 3], rows: &[Row]) {
    println!("### {title}\n\n| {} |\n|---|---|---|", header.join(" | "));
    rows.iter().for_each(|row| println!("| {} |", row.join(" | ")));
    println!();
}

fn torch() -> TorchArguments {
    TorchArguments::new(1)
}
fn mindspore() -> MindSporeArguments {
    MindSporeArguments::new(1)
}

/// A row in which both conventions can say it.
fn both(
    what: &str,
    torch: TorchArguments,
    mindspore: MindSporeArguments,
    look: Look,
) -> Result<Row, Error> {
    let mindspore = BatchNormConfig::try_from(mindspore).map_err(Error::from).and_then(layer);
    let of_torch = cell(layer(torch.into()), Naming::TORCH, look)?;
    Ok([what.to_owned(), of_torch, cell(mindspore, Naming::MINDSPORE, look)?])
}

/// A row of arguments that MindSpore has not.
fn of_torch(what: &str, torch: TorchArguments, look: Look) -> Result<Row, Error> {
    let refused = MindSporeArguments::try_from(&BatchNormConfig::from(torch));
    let of_torch = cell(layer(torch.into()), Naming::TORCH, look)?;
    Ok([what.to_owned(), of_torch, refusal(refused)])
}

/// A row of arguments that PyTorch has not.
fn of_mindspore(what: &str, mindspore: MindSporeArguments, look: Look) -> Result<Row, Error> {
    let config = BatchNormConfig::try_from(mindspore)?;
    let refused = TorchArguments::try_from(&config);
    Ok([what.to_owned(), refusal(refused), cell(layer(config), Naming::MINDSPORE, look)?])
}

fn cell(layer: Result<SyncBatchNorm, Error>, naming: Naming, look: Look) -> Result<String, Error> {
    match layer {
        Ok(layer) => look(layer, naming),
        Err(Error::Config(error)) => Ok(format!("refused: {error}")),
        Err(other) => Err(other),
    }
}

fn refusal<T>(converted: Result<T, ConfigError>) -> String {
    converted.map_or_else(|error| format!("refused: {error}"), |_| String::from("the same"))
}

fn layer(config: BatchNormConfig) -> Result<SyncBatchNorm, Error> {
    SyncBatchNorm::new(config, [Device::host(), Device::host()])
}

/// One tensor (N, 1) per rank.
fn upload(batch: Batch<'_>) -> Result<Vec<Tensor>, Error> {
    batch.iter().map(|values| Device::host().upload(&[values.len(), 1], values)).collect()
}

fn values(tensors: &[Tensor]) -> Result<Vec<f32>, Error> {
    let mut all = Vec::new();
    for tensor in tensors {
        all.extend(block_on(tensor.to_vec())?);
    }
    Ok(all)
}

/// A step of training; y.
fn train(bn: &SyncBatchNorm, batch: Batch<'_>) -> Result<Vec<f32>, Error> {
    values(&block_on(bn.forward_train(&upload(batch)?))?.output)
}

/// Running mean and variance; NaN where there are none.
fn running(bn: &SyncBatchNorm) -> [f32; 2] {
    bn.running_stats().map_or([f32::NAN; 2], |running| [running.mean[0], running.var[0]])
}

/// Mean and biased variance.
fn moments(x: &[f32]) -> [f64; 2] {
    let n = x.len() as f64;
    let mean = x.iter().copied().map(f64::from).sum::<f64>() / n;
    [mean, x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n]
}

fn momentum() -> Result<Vec<Row>, Error> {
    // y = d/√(d² + eps) for a batch of ±d.
    let eps: Look = |bn, _| {
        const D: f32 = 1e-3;
        let y = f64::from(train(&bn, [&[D, -D], &[D, -D, D, -D]])?[0]);
        Ok(format!("{:.2e}", f64::from(D).powi(2) * (1.0 / (y * y) - 1.0)))
    };
    let constant: Look = |bn, _| {
        Ok(format!("taken: a constant channel has y = {}", train(&bn, [&[5.0; 2], &[5.0; 4]])?[0]))
    };
    let step: Look = |bn, _| {
        train(&bn, BATCH)?;
        Ok(format!("{:.3}", running(&bn)[0]))
    };
    let two_steps: Look = |bn, _| {
        train(&bn, BATCH)?;
        let [first, _] = running(&bn);
        train(&bn, [&[8.0, 16.0], &[20.0, 28.0, 24.0, 24.0]])?;
        Ok(format!("{first:.3}, then {:.3} by a batch of mean 20", running(&bn)[0]))
    };
    let t = |momentum| TorchArguments { momentum, ..torch() };
    let m = |momentum| MindSporeArguments { momentum, ..mindspore() };
    let te = |eps| TorchArguments { eps, ..torch() };
    let me = |eps| MindSporeArguments { eps, ..mindspore() };
    let mean = |momentum: &str| format!("running mean: from 0, by a batch of mean 10, {momentum}");
    Ok(vec![
        both("default eps, found from y", torch(), mindspore(), eps)?,
        both("eps = 0", te(0.0), me(0.0), constant)?,
        both(&mean("default momentum"), torch(), mindspore(), step)?,
        both(&mean("momentum = 0.9"), t(Some(0.9)), m(0.9), step)?,
        both(&mean("momentum = 0.1"), t(Some(0.1)), m(0.1), step)?,
        of_torch(&mean("momentum = None"), t(None), two_steps)?,
    ])
}

fn affine() -> Result<Vec<Row>, Error> {
    let parameters: Look = |bn, naming| {
        let kept = checkpoints::names(&bn, naming)?;
        let kept: Vec<_> = kept.iter().filter(|name| !name.contains('_')).cloned().collect();
        let of = gradients(&bn)?.map(|gradient| gradient.is_some());
        let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
        Ok(format!("{kept}; gradients {}", of.map(|is| if is { "yes" } else { "no" }).join(", ")))
    };
    let of_bias: Look = |bn, _| {
        let of_ranks = gradients(&bn)?[1].clone().unwrap_or_default();
        // dy is 1, so a rank's own sum is the number of its values.
        let own = BATCH.map(|values| values.len() as f32);
        let whose = if of_ranks == own { "each rank's own sum" } else { "no rank's own sum" };
        Ok(format!("{of_ranks:?}: {whose}"))
    };
    let no_affine = TorchArguments { affine: false, ..torch() };
    let no_bias = TorchArguments { bias: false, ..torch() };
    let frozen = MindSporeArguments { affine: false, ..mindspore() };
    Ok(vec![
        both("parameters and gradients by default", torch(), mindspore(), parameters)?,
        both("the same with affine = false", no_affine, frozen, parameters)?,
        of_torch("the same with bias = false", no_bias, parameters)?,
        both("gradient of the bias on each rank, dy = 1", torch(), mindspore(), of_bias)?,
    ])
}

/// Gradients of weight and bias, of all ranks.
fn gradients(bn: &SyncBatchNorm) -> Result<[Option<Vec<f32>>; 2], Error> {
    let x = upload(BATCH)?;
    let dy = upload([&[1.0; 2], &[1.0; 4]])?;
    let saved = block_on(bn.forward_train(&x))?.saved;
    let found = block_on(bn.backward(&saved, Backward::of(&x, &dy)))?;
    let read = |of: Option<Vec<Tensor>>| of.map(|of| values(&of)).transpose();
    Ok([read(found.weight)?, read(found.bias)?])
}

fn statistics() -> Result<Vec<Row>, Error> {
    let used: Look = |mut bn, _| {
        let mut modes = Vec::new();
        for mode in ["training", "evaluation"] {
            if bn.config().track_running_stats {
                let [mean, var] = RUNNING.map(|value| vec![value]);
                bn.set_running_stats(RunningStats { mean, var, num_batches_tracked: 1 })?;
            }
            let x = upload(BATCH)?;
            let forward = match mode {
                "training" => block_on(bn.forward_train(&x))?,
                _ => block_on(bn.forward_eval(&x))?,
            };
            // y of the first value shows whose mean and variance it was normalized with.
            let y = f64::from(values(&forward.output)?[0]);
            let candidates = [
                ("the group's batch", moments(&BATCH.concat())),
                ("each rank's own batch", moments(BATCH[0])),
                ("the running ones", RUNNING.map(f64::from)),
            ];
            let y_of = |[mean, var]: [f64; 2]| (4.0 - mean) / var.sqrt();
            let name = candidates
                .iter()
                .find(|(_, of)| approx::abs_diff_eq!(y_of(*of), y, epsilon = 1e-5))
                .map_or("others", |(name, _)| name);
            let moved = bn.config().track_running_stats && running(&bn) != RUNNING;
            let moved = if moved { ", and moves the running ones" } else { "" };
            modes.push(format!("{mode}: {name}{moved}"));
        }
        Ok(modes.join("; "))
    };
    let no_track = TorchArguments { track_running_stats: false, ..torch() };
    let with = |setting| MindSporeArguments { use_batch_statistics: setting, ..mindspore() };
    Ok(vec![
        both("by default", torch(), mindspore(), used)?,
        of_torch("track_running_stats = false", no_track, used)?,
        of_mindspore("use_batch_statistics = True", with(Some(true)), used)?,
        of_mindspore("use_batch_statistics = False", with(Some(false)), used)?,
    ])
}

fn initial() -> Result<Vec<Row>, Error> {
    let start: Look = |bn, _| {
        let state = block_on(bn.state())?;
        let vectors = [state.weight, state.bias, state.running_mean, state.running_var];
        let first = vectors.map(|values| values.map_or(f32::NAN, |values| values[0]).to_string());
        Ok(format!("{}; {:?} steps", first.join(", "), state.num_batches_tracked.unwrap_or(0)))
    };
    let gamma = |gamma_init| MindSporeArguments { gamma_init, ..mindspore() };
    let what = "weight, bias, running mean, running variance";
    Ok(vec![
        both(what, torch(), mindspore(), start)?,
        of_mindspore("the same with gamma_init = 0.5", gamma("0.5".parse()?), start)?,
        of_mindspore("the same with gamma_init = \"normal\"", gamma("normal".parse()?), start)?,
    ])
}
