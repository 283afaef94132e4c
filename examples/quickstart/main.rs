//! Photos of different brightness as one batch, each device with a part of it: normalized together,
//! bright stays bright and dark stays dark; normalized each by itself, all come out equally grey.
//!
//! `cargo run --release --example quickstart`: on the GPUs, on a software driver where there is
//! none, on the host (CPU) where there is no driver either. `-- --help` lists the options.

mod photos;
mod picture;

use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use pollster::block_on;
use syncbn::stats::Moments;
use syncbn::wgpu::{Adapter, DeviceType};
use syncbn::{BatchNormConfig, Device, SyncBatchNorm};
use syncbn_reference::{Affine, RankBatch};

use photos::Photos;
use picture::{Panel, Row};

const HELP: &str = "\
quickstart: photos over several devices, normalized each by itself and all together

  --devices COUNT   1 to 64 [default: 4]; GPUs carry several where there are fewer
  --adapter NAME    devices on the adapters whose name contains NAME, or on the `host`
                    [default: all GPUs, else a software driver, else the host]
  --input FOLDER    RGB photos NAME.png of one size [default: the project's four]
  --output FILE     the picture [default: target/quickstart.png]
";
/// How far y may be from the definition, in ulp of the largest |y| of its channel.
const MAX_ULPS: f64 = 8.0;
/// Passes of which the fastest counts. The first one compiles the kernels.
const PASSES: usize = 5;
/// More photos than this are not drawn.
const MAX_COLUMNS: usize = 8;

fn main() -> ExitCode {
    let done = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => block_on(run(&options)),
        Ok(None) => {
            print!("{HELP}");
            Ok(())
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = &done {
        eprintln!("error: {error}");
    }
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let photos = Photos::load(&options.input)?;
    let devices = devices(options).await?;
    let shards = photos.shards(devices.len());

    let mut fastest = f64::INFINITY;
    let mut synchronized = normalize(&devices, &photos, &shards).await?;
    for _ in 1..PASSES {
        let started = Instant::now();
        synchronized = normalize(&devices, &photos, &shards).await?;
        fastest = fastest.min(started.elapsed().as_secs_f64());
    }
    println!("rank  mean and variance of red, green, blue; device; photos");
    for (rank, (device, shard)) in devices.iter().zip(&shards).enumerate() {
        let names = photos.names[shard.clone()].join(", ");
        println!("{rank:>4}  {}  {device}: {names}", described(&synchronized.local[rank]));
    }
    println!(" all  {}", described(&synchronized.global));
    println!("a pass with upload and download: {:.1} ms", 1e3 * fastest);

    let mut alone = Vec::new();
    for index in 0..photos.names.len().min(MAX_COLUMNS) {
        let rank = shards.iter().position(|shard| shard.contains(&index)).unwrap_or(0);
        let photo = index..index + 1;
        let of_photo = std::slice::from_ref(&photo);
        alone.push(normalize(&devices[rank..=rank], &photos, of_photo).await?);
    }
    picture::write(&rows(&photos, &alone, &synchronized), &options.output)?;
    println!("picture: {}", options.output.display());

    let ulps = worst_ulps(&photos, &synchronized.y)?;
    println!("y is within {ulps:.1} ulp of the definition in f64, at most {MAX_ULPS} are allowed");
    if ulps <= MAX_ULPS { Ok(()) } else { Err("y is wrong".into()) }
}

/// The result of a pass over some photos.
struct Pass {
    /// (N, 3, H, W).
    y: Vec<f32>,
    /// Statistics of the channels on each rank.
    local: Vec<Vec<Moments>>,
    /// Over all ranks: those by which y is normalized.
    global: Vec<Moments>,
}

async fn normalize(
    devices: &[Device],
    photos: &Photos,
    shards: &[Range<usize>],
) -> Result<Pass, syncbn::Error> {
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(3), devices.iter().cloned())?;
    let mut x = Vec::new();
    for (device, shard) in devices.iter().zip(shards) {
        x.push(device.upload(&photos.dims(shard), photos.values(shard))?);
    }
    let forward = layer.forward_train(&x).await?;
    let mut y = Vec::new();
    for output in &forward.output {
        y.extend(output.to_vec().await?);
    }
    let local = forward.saved.report().map(|report| report.local.ranks().to_vec());
    let global = forward.saved.statistics().map(|global| global.channels().to_vec());
    Ok(Pass { y, local: local.unwrap_or_default(), global: global.unwrap_or_default() })
}

fn described(channels: &[Moments]) -> String {
    let channel = |of: &Moments| match of.count {
        0 => format!("{:>14}", "-"),
        _ => format!("{:>6.2} {:>7.1}", of.mean, of.var_biased()),
    };
    channels.iter().map(channel).collect::<Vec<_>>().join("  ")
}

/// The input, each photo by itself, and all synchronized.
fn rows(photos: &Photos, alone: &[Pass], synchronized: &Pass) -> Vec<Row> {
    let range = |index: usize| index..index + 1;
    let photo_size = photos.values(&range(0)).len();
    let panel = |values: Vec<f32>, caption| Panel { values, width: photos.width, caption };
    let means = |of: &[Moments]| of.iter().map(|of| format!(" {:.1}", of.mean)).collect::<String>();
    let normalized = |y: &[f32], statistics: &[Moments]| {
        let mean_y = y.chunks_exact(y.len() / 3).map(|channel| {
            let mean = channel.iter().sum::<f32>() / channel.len() as f32;
            format!(" {:.2}", if mean.abs() < 0.005 { 0.0 } else { mean })
        });
        let caption = [
            format!("with the mean{}", means(statistics)),
            format!("mean of y{}", mean_y.collect::<String>()),
        ];
        panel(y.iter().map(|y| 255.0 * (0.5 + y / 5.0)).collect(), caption)
    };
    let inputs = alone.iter().enumerate().map(|(index, alone)| {
        let caption = [photos.names[index].clone(), format!("mean{}", means(&alone.global))];
        panel(photos.values(&range(index)).to_vec(), caption)
    });
    let by_itself = alone.iter().map(|alone| normalized(&alone.y, &alone.global));
    let of_all = synchronized.y.chunks_exact(photo_size).take(alone.len());
    vec![
        Row {
            heading: "Input",
            about: "Pixel values from 0 to 255; numbers are of red, green and blue.",
            panels: inputs.collect(),
        },
        Row {
            heading: "Each photo normalized by itself",
            about: "Every photo comes out equally bright. Black is y = −2.5, white is y = 2.5.",
            panels: by_itself.collect(),
        },
        Row {
            heading: "All photos normalized together, over their devices",
            about: "Bright stays bright, dark stays dark.",
            panels: of_all.map(|y| normalized(y, &synchronized.global)).collect(),
        },
    ]
}

/// The largest error of y, in ulp of the largest |y| of its channel. NaN is the largest.
fn worst_ulps(photos: &Photos, y: &[f32]) -> Result<f64, Box<dyn Error>> {
    let all = 0..photos.names.len();
    let values: Vec<f64> = photos.values(&all).iter().copied().map(f64::from).collect();
    let batch = RankBatch { dims: &photos.dims(&all), values: &values };
    let eps = BatchNormConfig::torch(3).eps;
    let expected = syncbn_reference::forward_train(&[batch], Affine::default(), eps)?.outputs;
    let plane = photos.width * photos.height;
    let mut largest = [0f64; 3];
    let mut errors = [0f64; 3];
    for (index, (y, expected)) in y.iter().zip(&expected[0]).enumerate() {
        let channel = index / plane % 3;
        let error = (f64::from(*y) - expected).abs();
        largest[channel] = largest[channel].max(expected.abs());
        errors[channel] = if error.is_nan() { f64::INFINITY } else { errors[channel].max(error) };
    }
    let ulp = |value: f64| f64::from((value as f32).next_up() - value as f32);
    Ok(errors.iter().zip(largest).map(|(error, of)| error / ulp(of)).fold(0.0, f64::max))
}

/// As many devices as asked for: on one adapter after the other, or all on the host.
async fn devices(options: &Options) -> Result<Vec<Device>, Box<dyn Error>> {
    let mut adapters = Device::adapters().await;
    let name = |adapter: &Adapter| adapter.get_info().name.to_lowercase();
    match options.adapter.as_deref().map(str::to_lowercase) {
        Some(host) if host == "host" => adapters.clear(),
        Some(wanted) => {
            let known = adapters.iter().map(name).collect::<Vec<_>>().join(", ");
            adapters.retain(|adapter| name(adapter).contains(&wanted));
            if adapters.is_empty() {
                return Err(
                    format!("no adapter is called {wanted}; known are {known}, host").into()
                );
            }
        }
        None => {
            let is_gpu = |adapter: &Adapter| adapter.get_info().device_type != DeviceType::Cpu;
            // GPUs come first. Of software drivers one is enough.
            let gpus = adapters.iter().filter(|adapter| is_gpu(adapter)).count();
            adapters.truncate(gpus.max(1));
        }
    }
    if adapters.is_empty() {
        return Ok(vec![Device::host(); options.devices]);
    }
    let mut devices = Vec::new();
    for adapter in adapters.iter().cycle().take(options.devices) {
        devices.push(Device::from_adapter(adapter).await?);
    }
    Ok(devices)
}

#[derive(Debug, PartialEq)]
struct Options {
    devices: usize,
    adapter: Option<String>,
    input: PathBuf,
    output: PathBuf,
}

impl Options {
    /// `None` where help is asked for.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut options = Self {
            devices: 4,
            adapter: None,
            input: project.join("examples/data/photos"),
            output: project.join("target/quickstart.png"),
        };
        while let Some(name) = arguments.next() {
            if name == "--help" {
                return Ok(None);
            }
            let value = arguments.next().ok_or_else(|| format!("{name} has no value"));
            match name.as_str() {
                "--devices" => options.devices = count(&value?)?,
                "--adapter" => options.adapter = Some(value?),
                "--input" => options.input = value?.into(),
                "--output" => options.output = value?.into(),
                _ => return Err(format!("{name} is not known; --help lists the options")),
            }
        }
        Ok(Some(options))
    }
}

fn count(value: &str) -> Result<usize, String> {
    let count = value.parse().ok().filter(|count| (1..=64).contains(count));
    count.ok_or_else(|| format!("--devices is {value}; expected a number from 1 to 64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_and_others_are_refused() {
        let parse = |line: &str| Options::parse(line.split_whitespace().map(str::to_owned));
        let options = parse("--devices 64 --adapter host --output a.png").expect("options");
        let options = options.expect("no help");
        assert_eq!((options.devices, options.adapter.as_deref()), (64, Some("host")));
        assert_eq!(options.output, Path::new("a.png"));
        assert_eq!(parse("--help"), Ok(None));
        for line in ["--devices 0", "--devices 65", "--devices", "--photos a"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
