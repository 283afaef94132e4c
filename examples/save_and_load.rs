//! Trains a layer over two ranks, saves its state under both namings, loads it into new layers, and
//! compares.
//!
//! `cargo run --release --example save_and_load`. The ranks are two virtual devices on the first
//! adapter, or the host where there is none. Files go to `target/`; `tests/pytorch/check_load.py`
//! shows that PyTorch loads them. The way through:
//!
//! ```text
//! train  ->  state  ->  save as PyTorch and as MindSpore
//!     ->  load  ->  the same y, bit for bit
//!     ->  the errors of a wrong path and of a wrong layer
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use syncbn::{
    BatchNormConfig, Device, SyncBatchNorm,
    state::{Checkpoint, LoadOptions, Naming, StateDict},
};

use training::{CHANNELS, Shard};

/// Where the layer stands in a model, as the names of a file say it.
const PREFIX: &str = "layer1.0.bn1";

fn main() -> ExitCode {
    match pollster::block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is no other place to report a failure of this.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    let config = BatchNormConfig::torch(CHANNELS);
    let devices = devices().await?;
    writeln!(out, "two ranks on {}", devices[0].name())?;
    let mut trained = SyncBatchNorm::new(config.clone(), devices.clone())?;
    for (step, loss) in training::run(&mut trained).await?.into_iter().enumerate() {
        writeln!(out, "  step {step}: loss {loss:.6}")?;
    }
    let state = trained.state().await?;
    writeln!(out, "state: {}", summary(&state))?;

    std::fs::create_dir_all(target(""))?;
    let shards = training::shards(99);
    let expected = evaluate(&trained, &shards).await?;
    for (naming, name) in [(Naming::TORCH, "torch"), (Naming::MINDSPORE, "mindspore")] {
        let path = target(&format!("save_and_load.{name}.safetensors"));
        let mut checkpoint = Checkpoint::new().with_namings([naming]);
        checkpoint.set_layer(PREFIX, &state)?;
        checkpoint.save(&path)?;
        let loaded = Checkpoint::open(&path)?.layer(PREFIX)?;
        let mut layer = SyncBatchNorm::new(config.clone(), devices.clone())?;
        layer.load_state(&loaded, &LoadOptions::default())?;
        let same = bits(&evaluate(&layer, &shards).await?) == bits(&expected);
        writeln!(out, "\n{}\n  loaded: {}", path.display(), summary(&loaded))?;
        writeln!(
            out,
            "  evaluation in a new layer: {}",
            if same { "the same bits" } else { "OTHER BITS" }
        )?;
        if !same {
            return Err(
                format!("the layer loaded from {} evaluates differently", path.display()).into()
            );
        }
    }

    let path = target("save_and_load.torch.safetensors");
    writeln!(out, "\nwhat goes wrong is said in full:")?;
    let checkpoint = Checkpoint::open(&path)?;
    match checkpoint.layer("layer1.bn1") {
        Ok(_) => return Err("a wrong path was accepted".into()),
        Err(error) => writeln!(out, "  a wrong path: {error}")?,
    }
    let loaded = checkpoint.layer(PREFIX)?;
    for (what, config) in [
        ("another number of channels", BatchNormConfig::torch(CHANNELS + 1)),
        ("a layer without bias", config.clone().with_bias(false)),
    ] {
        match loaded.check(&config, &LoadOptions::default()) {
            Ok(_) => return Err(format!("{what} was accepted").into()),
            Err(error) => writeln!(out, "  {what}: {error}")?,
        }
    }

    let path = target("save_and_load.eval.safetensors");
    save_evaluation(&path, &shards, &expected)?;
    writeln!(out, "\ninputs and outputs of the evaluation: {}", path.display())?;
    Ok(())
}

/// Two virtual devices on the first adapter, or the host twice.
async fn devices() -> Result<Vec<Device>, syncbn::Error> {
    match Device::adapters().await.first() {
        Some(adapter) => {
            Ok(vec![Device::from_adapter(adapter).await?, Device::from_adapter(adapter).await?])
        }
        None => Ok(vec![Device::host(), Device::host()]),
    }
}

/// y of all ranks one after the other.
async fn evaluate(layer: &SyncBatchNorm, shards: &[Shard; 2]) -> Result<Vec<f32>, syncbn::Error> {
    let inputs = training::upload(layer, shards)?;
    let mut y = Vec::new();
    for output in layer.forward_eval(&inputs).await?.output {
        y.extend(output.to_vec().await?);
    }
    Ok(y)
}

/// x and y of the whole batch, (N, C, L), for a program that reads the saved state.
fn save_evaluation(path: &Path, shards: &[Shard; 2], y: &[f32]) -> Result<(), Box<dyn Error>> {
    let samples = shards.iter().map(|shard| shard.dims[0]).sum();
    let dims = vec![samples, shards[0].dims[1], shards[0].dims[2]];
    let x: Vec<f32> = shards.iter().flat_map(|shard| shard.values.iter().copied()).collect();
    let little_endian =
        |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let x = little_endian(&x);
    let y = little_endian(y);
    let tensors = [
        ("x", TensorView::new(Dtype::F32, dims.clone(), &x)?),
        ("y", TensorView::new(Dtype::F32, dims, &y)?),
    ];
    std::fs::write(path, safetensors::serialize(tensors, None)?)?;
    Ok(())
}

/// The first channel of each tensor of a state.
fn summary(state: &StateDict) -> String {
    let vectors = [
        ("weight", &state.weight),
        ("bias", &state.bias),
        ("running mean", &state.running_mean),
        ("running variance", &state.running_var),
    ];
    let first = |(name, values): (&str, &Option<Vec<f32>>)| {
        values.as_deref().and_then(<[f32]>::first).map(|value| format!("{name} {value:.4} …"))
    };
    let counter = match state.num_batches_tracked {
        Some(count) => format!("{count} steps"),
        None => String::from("steps not counted"),
    };
    vectors.into_iter().filter_map(first).chain([counter]).collect::<Vec<_>>().join(", ")
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name)
}

/// A few steps of gradient descent on random data, so that there is a state worth saving.
///
/// The layer learns the channels' targets: y is to have mean and deviation of its own in every
/// channel.
mod training {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use syncbn::{Backward, Error, SyncBatchNorm, Tensor};

    /// C.
    pub const CHANNELS: usize = 4;
    /// Steps of the run.
    const STEPS: u64 = 6;
    /// Weight of a gradient in a step.
    const LEARNING_RATE: f32 = 0.5;
    /// The target of y in every channel: scale and shift of the normalized input.
    const TARGETS: [(f32, f32); CHANNELS] = [(2.0, 1.0), (0.5, -1.0), (1.0, 3.0), (3.0, 0.0)];

    /// The part of a batch that one rank holds, (N, C, L).
    pub struct Shard {
        pub dims: [usize; 3],
        pub values: Vec<f32>,
    }

    /// A batch on two ranks of different size, from a seed.
    pub fn shards(seed: u64) -> [Shard; 2] {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut next = || random.next_u32() as f32 / (1u32 << 31) as f32 - 1.0;
        [[6, CHANNELS, 10], [3, CHANNELS, 10]].map(|dims: [usize; 3]| {
            // Every channel has a mean and a deviation of its own.
            let value = |index: usize| (index / dims[2] % CHANNELS) as f32;
            let values = (0..dims.iter().product())
                .map(|index| 5.0 * value(index) + (1.0 + value(index)) * next());
            Shard { dims, values: values.collect() }
        })
    }

    /// The shards, each on the device of its rank.
    pub fn upload(layer: &SyncBatchNorm, shards: &[Shard; 2]) -> Result<Vec<Tensor>, Error> {
        shards
            .iter()
            .zip(layer.devices())
            .map(|(shard, device)| device.upload(&shard.dims, &shard.values))
            .collect()
    }

    /// Trains the layer; the loss of every step, half the mean square of y − target.
    pub async fn run(layer: &mut SyncBatchNorm) -> Result<Vec<f32>, Error> {
        let mut parameters = [[1.0f32; CHANNELS], [0.0; CHANNELS]];
        let mut losses = Vec::new();
        for step in 0..STEPS {
            let inputs = upload(layer, &shards(step))?;
            let forward = layer.forward_train(&inputs).await?;
            let count = inputs.iter().map(Tensor::element_count).sum::<usize>() as f32;

            // The target is the output of the layer with the right weight and bias.
            let mut loss = 0.0;
            let mut grad_outputs = Vec::new();
            for output in &forward.output {
                let positions: usize = output.dims()[2..].iter().product();
                let mut upstream = output.to_vec().await?;
                for (index, y) in upstream.iter_mut().enumerate() {
                    let channel = index / positions % CHANNELS;
                    let (scale, shift) = TARGETS[channel];
                    let normalized = (*y - parameters[1][channel]) / parameters[0][channel];
                    let error = *y - (scale * normalized + shift);
                    loss += 0.5 * error * error / count;
                    *y = error / count * CHANNELS as f32;
                }
                grad_outputs.push(output.device().upload(output.dims(), &upstream)?);
            }
            losses.push(loss);

            // Gradients of weight and bias are each rank's own: the trainer adds them up.
            let backward =
                layer.backward(&forward.saved, Backward::of(&inputs, &grad_outputs)).await?;
            for (values, gradients) in parameters.iter_mut().zip([backward.weight, backward.bias]) {
                for gradient in gradients.unwrap_or_default() {
                    for (value, gradient) in values.iter_mut().zip(gradient.to_vec().await?) {
                        *value -= LEARNING_RATE * gradient;
                    }
                }
            }
            layer.set_parameters(Some(&parameters[0]), Some(&parameters[1]))?;
        }
        Ok(losses)
    }
}
