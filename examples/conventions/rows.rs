//! The questions: each is put to a layer of either convention, and the answer is a cell.

use pollster::block_on;
use syncbn::{
    BatchNormConfig, Error,
    config::{Initializer, MindSporeArguments, TorchArguments},
    error::ConfigError,
    state::{LoadOptions, Naming, StateDict},
};

use crate::layer::{BATCH, Layer, values};
use crate::table::Row;

/// What is read off a layer.
type Look = fn(Layer, Naming) -> Result<String, Error>;

fn torch() -> TorchArguments {
    TorchArguments::new(1)
}

fn mindspore() -> MindSporeArguments {
    MindSporeArguments::new(1)
}

/// The answer of PyTorch's layer, or what its parameters are refused with.
fn of_torch(arguments: TorchArguments, look: Look) -> Result<String, Error> {
    answer(Layer::new(arguments.into()), Naming::Torch, look)
}

/// The answer of MindSpore's layer, or what its parameters are refused with.
fn of_mindspore(arguments: MindSporeArguments, look: Look) -> Result<String, Error> {
    let config = BatchNormConfig::try_from(arguments).map_err(Error::from);
    answer(config.and_then(Layer::new), Naming::MindSpore, look)
}

fn answer(layer: Result<Layer, Error>, naming: Naming, look: Look) -> Result<String, Error> {
    match layer {
        Ok(layer) => look(layer, naming),
        Err(Error::Config(error)) => Ok(error.to_string()),
        Err(other) => Err(other),
    }
}

/// Why one convention cannot say what a configuration of the other does.
fn refusal<T>(converted: Result<T, ConfigError>) -> String {
    converted.map_or_else(|error| error.to_string(), |_| String::from("the same"))
}

fn not_in_torch(arguments: MindSporeArguments) -> Result<String, Error> {
    Ok(refusal(TorchArguments::try_from(&BatchNormConfig::try_from(arguments)?)))
}

fn not_in_mindspore(arguments: TorchArguments) -> String {
    refusal(MindSporeArguments::try_from(&BatchNormConfig::from(arguments)))
}

fn row(what: &str, torch: String, mindspore: String) -> Row {
    [what.to_owned(), torch, mindspore]
}

pub fn parameters() -> Result<Vec<Row>, Error> {
    // y = d/√(d² + eps) for a batch of ±d.
    let eps: Look = |layer, _| {
        const D: f32 = 1e-3;
        let y = f64::from(layer.train([&[D, -D], &[D, -D, D, -D]])?[0]);
        let d = f64::from(D);
        Ok(format!("{:.2e}, found from y", d * d / (y * y) - d * d))
    };
    let constant: Look = |layer, _| {
        let y = layer.train([&[5.0; 2], &[5.0; 4]])?;
        Ok(format!("taken; a constant channel gives y = {}", y[0]))
    };
    let step: Look = |layer, _| {
        layer.train(BATCH)?;
        Ok(format!("0 moves to {:.3}", layer.running().map_or(f32::NAN, |(mean, _)| mean)))
    };
    let two_steps: Look = |layer, _| {
        layer.train(BATCH)?;
        let first = layer.running().map_or(f32::NAN, |(mean, _)| mean);
        let doubled: [Vec<f32>; 2] = BATCH.map(|values| values.iter().map(|x| 2.0 * x).collect());
        layer.train([&doubled[0], &doubled[1]])?;
        let second = layer.running().map_or(f32::NAN, |(mean, _)| mean);
        Ok(format!("0 moves to {first:.3}, then, by a batch of mean 20, to {second:.3}"))
    };
    let momentum = |momentum| TorchArguments { momentum, ..torch() };
    let decay = |momentum| MindSporeArguments { momentum, ..mindspore() };
    Ok(vec![
        row("eps by default", of_torch(torch(), eps)?, of_mindspore(mindspore(), eps)?),
        row(
            "eps = 0",
            of_torch(TorchArguments { eps: 0.0, ..torch() }, constant)?,
            of_mindspore(MindSporeArguments { eps: 0.0, ..mindspore() }, constant)?,
        ),
        row(
            "eps = 2",
            of_torch(TorchArguments { eps: 2.0, ..torch() }, constant)?,
            of_mindspore(MindSporeArguments { eps: 2.0, ..mindspore() }, constant)?,
        ),
        row("running mean by default", of_torch(torch(), step)?, of_mindspore(mindspore(), step)?),
        row(
            "with momentum = 0.9",
            of_torch(momentum(Some(0.9)), step)?,
            of_mindspore(decay(0.9), step)?,
        ),
        row(
            "with momentum = 0.1",
            of_torch(momentum(Some(0.1)), step)?,
            of_mindspore(decay(0.1), step)?,
        ),
        row(
            "with momentum = None",
            of_torch(momentum(None), two_steps)?,
            not_in_mindspore(momentum(None)),
        ),
        row(
            "with momentum = 1.5",
            of_torch(momentum(Some(1.5)), step)?,
            of_mindspore(decay(1.5), step)?,
        ),
    ])
}

pub fn affine() -> Result<Vec<Row>, Error> {
    const PARAMETERS: [&str; 4] = ["weight", "bias", "gamma", "beta"];
    let parameters: Look = |layer, naming| {
        let mut names = layer.names(naming)?;
        names.retain(|name| PARAMETERS.contains(&name.as_str()));
        let kept = if names.is_empty() { String::from("no parameters") } else { names.join(", ") };
        let backward = layer.gradients()?;
        let gradients = match (backward.weight.is_some(), backward.bias.is_some()) {
            (true, true) => "gradients of both",
            (true, false) => "gradient of the first alone",
            (false, true) => "gradient of the second alone",
            (false, false) => "no gradients",
        };
        Ok(format!("{kept}; {gradients}"))
    };
    let of_bias: Look = |layer, _| {
        let of_ranks = values(&layer.gradients()?.bias.unwrap_or_default())?;
        // The upstream gradient is 1, so that a rank's own sum is the number of its values.
        let own: Vec<f32> = BATCH.iter().map(|values| values.len() as f32).collect();
        let whose = if of_ranks == own { "each rank's own sum" } else { "not each rank's own sum" };
        Ok(format!("{} on rank 0, {} on rank 1: {whose}", of_ranks[0], of_ranks[1]))
    };
    let no_affine = TorchArguments { affine: false, ..torch() };
    let no_bias = TorchArguments { bias: false, ..torch() };
    let frozen = MindSporeArguments { affine: false, ..mindspore() };
    Ok(vec![
        row(
            "affine = true",
            of_torch(torch(), parameters)?,
            of_mindspore(mindspore(), parameters)?,
        ),
        row("affine = false", of_torch(no_affine, parameters)?, of_mindspore(frozen, parameters)?),
        row("bias = false", of_torch(no_bias, parameters)?, not_in_mindspore(no_bias)),
        row(
            "bias gradient of Σy",
            of_torch(torch(), of_bias)?,
            of_mindspore(mindspore(), of_bias)?,
        ),
    ])
}

pub fn statistics() -> Result<Vec<Row>, Error> {
    let both_modes: Look = |mut layer, _| {
        let mut modes = Vec::new();
        for (mode, train) in [("training", true), ("evaluation", false)] {
            let used = layer.used(train)?;
            let running = match layer.running() {
                None => "",
                Some(_) if used.moved => ", which moves the running ones",
                Some(_) => ", and none move",
            };
            modes.push(format!("{mode}: {}{running}", used.statistics));
        }
        Ok(modes.join("; "))
    };
    let variance: Look = |layer, _| {
        layer.train(BATCH)?;
        let found = f64::from(layer.running().map_or(f32::NAN, |(_, var)| var));
        let all: Vec<f64> = BATCH.concat().into_iter().map(f64::from).collect();
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        let m2: f64 = all.iter().map(|x| (x - mean) * (x - mean)).sum();
        let divisors = [("N - 1", n - 1.0), ("N", n)];
        let divisor = divisors.iter().find(|(_, divisor)| (found - m2 / divisor).abs() < 1e-5);
        Ok(format!(
            "{found:.3} = Σ(x - mean)² / ({}), N = {n} of the group",
            divisor.map_or("?", |(name, _)| name)
        ))
    };
    let no_track = TorchArguments { track_running_stats: false, ..torch() };
    let with = |setting| MindSporeArguments { use_batch_statistics: setting, ..mindspore() };
    let whole_batch = TorchArguments { momentum: Some(1.0), ..torch() };
    let whole_batch_decay = MindSporeArguments { momentum: 0.0, ..mindspore() };
    Ok(vec![
        row("by default", of_torch(torch(), both_modes)?, of_mindspore(mindspore(), both_modes)?),
        row(
            "track_running_stats = false",
            of_torch(no_track, both_modes)?,
            not_in_mindspore(no_track),
        ),
        row(
            "use_batch_statistics = True",
            not_in_torch(with(Some(true)))?,
            of_mindspore(with(Some(true)), both_modes)?,
        ),
        row(
            "use_batch_statistics = False",
            not_in_torch(with(Some(false)))?,
            of_mindspore(with(Some(false)), both_modes)?,
        ),
        row(
            "running variance of one batch",
            of_torch(whole_batch, variance)?,
            of_mindspore(whole_batch_decay, variance)?,
        ),
    ])
}

pub fn initial() -> Result<Vec<Row>, Error> {
    let start: Look = |layer, _| {
        let state = layer.state()?;
        let first =
            |values: &Option<Vec<f32>>| values.iter().flatten().next().copied().unwrap_or(f32::NAN);
        Ok(format!(
            "weight {}, bias {}, running mean {}, running variance {}",
            first(&state.weight),
            first(&state.bias),
            first(&state.running_mean),
            first(&state.running_var)
        ))
    };
    let gamma =
        |initializer: Initializer| MindSporeArguments { gamma_init: initializer, ..mindspore() };
    let half = gamma("0.5".parse()?);
    let normal = gamma("normal".parse()?);
    let unknown = "xavier_uniform".parse::<Initializer>();
    Ok(vec![
        row("by default", of_torch(torch(), start)?, of_mindspore(mindspore(), start)?),
        row("gamma_init = 0.5", not_in_torch(half.clone())?, of_mindspore(half, start)?),
        row(
            "gamma_init = \"normal\"",
            not_in_torch(normal.clone())?,
            of_mindspore(normal.clone(), start)?,
        ),
        row("gamma_init = \"xavier_uniform\"", not_in_torch(normal)?, refusal(unknown)),
    ])
}

pub fn checkpoints() -> Result<Vec<Row>, Error> {
    let taken: Look = |layer, _| {
        let mut taken = Vec::new();
        let mut refused = Vec::new();
        for dims in [
            vec![4],
            vec![4, 1],
            vec![4, 1, 2],
            vec![4, 1, 2, 3],
            vec![4, 1, 1, 2, 3],
            vec![2, 1, 2, 1, 2, 1],
        ] {
            let count = dims.iter().product();
            let ramp: Vec<f32> = (0..count).map(|i: usize| i as f32).collect();
            let inputs: Result<Vec<_>, Error> =
                layer.bn.devices().iter().map(|device| device.upload(&dims, &ramp)).collect();
            let result = block_on(layer.bn.forward_train(&inputs?));
            let name = format!("{}-D", dims.len());
            if result.is_ok() { taken.push(name) } else { refused.push(name) }
        }
        Ok(format!("{}; refused: {}", taken.join(", "), refused.join(", ")))
    };
    let names: Look = |layer, naming| Ok(layer.names(naming)?.join(", "));
    let counter: Look = |layer, naming| {
        for _ in 0..3 {
            layer.train(BATCH)?;
        }
        let bytes = layer.state()?.to_safetensors(naming, "bn")?;
        let config = layer.bn.config().clone();
        let options = LoadOptions { prefix: String::from("bn"), ..LoadOptions::default() };
        let mut loaded = Layer::new(config.clone())?;
        loaded.bn.load_state(&StateDict::from_safetensors(&bytes, &config, &options)?, &options)?;
        let count = |layer: &Layer| {
            layer.bn.running_stats().map_or(0, |running| running.num_batches_tracked)
        };
        Ok(format!("{} saved, {} loaded", count(&layer), count(&loaded)))
    };
    Ok(vec![
        row("inputs", of_torch(torch(), taken)?, of_mindspore(mindspore(), taken)?),
        row("names in a checkpoint", of_torch(torch(), names)?, of_mindspore(mindspore(), names)?),
        row(
            "steps counted in it",
            of_torch(torch(), counter)?,
            of_mindspore(mindspore(), counter)?,
        ),
        row(
            "the other one's checkpoint",
            other_checkpoint(torch().into(), Naming::MindSpore)?,
            other_checkpoint(BatchNormConfig::try_from(mindspore())?, Naming::Torch)?,
        ),
    ])
}

/// Whether a layer with the parameters of a file under the other naming evaluates as the layer that
/// wrote it.
fn other_checkpoint(config: BatchNormConfig, naming: Naming) -> Result<String, Error> {
    let writer = Layer::new(config.clone())?;
    writer.train(BATCH)?;
    let bytes = writer.state()?.to_safetensors(naming, "")?;
    let mut reader = Layer::new(config.clone())?;
    let options = LoadOptions::default();
    reader.bn.load_state(&StateDict::from_safetensors(&bytes, &config, &options)?, &options)?;
    let mut y = Vec::new();
    for layer in [&writer, &reader] {
        let inputs = layer.inputs(BATCH)?;
        y.push(values(&block_on(layer.bn.forward_eval(&inputs))?.output)?);
    }
    let same = y[0].iter().zip(&y[1]).all(|(a, b)| a.to_bits() == b.to_bits());
    Ok(String::from(if same {
        "loads, and gives the same bits"
    } else {
        "loads, but gives other bits"
    }))
}
