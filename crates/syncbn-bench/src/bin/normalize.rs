//! Normalizes a batch from a file in training mode and writes y for comparison with other programs
//! (`scripts/peers/accuracy.py`). Files hold little-endian f32 without a header. Prints the device.

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use pollster::block_on;
use syncbn::{BatchNorm, BatchNormConfig, Device, SyncBatchNorm, Tensor};

/// Normalizes a batch from a file in training mode, without weight and bias.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Shape (N, C, spatial…) of the batch.
    #[arg(long, value_delimiter = ',', required = true)]
    shape: Vec<usize>,
    /// Added to the variance.
    #[arg(long, default_value_t = 1e-5)]
    eps: f64,
    /// `host`, or a part of an adapter's name.
    #[arg(long, default_value = "host")]
    adapter: String,
    /// Ranks over which the samples are cut, each a device of its own.
    #[arg(long, default_value_t = 1)]
    ranks: usize,
    /// Takes `BatchNorm`, whose statistics stay on the GPU, instead of `SyncBatchNorm`.
    #[arg(long)]
    on_device: bool,
    /// The batch.
    input: PathBuf,
    /// File for y.
    output: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let x = bytemuck::pod_collect_to_vec::<u8, f32>(&std::fs::read(&options.input)?);
    let y = block_on(normalize(&options, &x))?;
    std::fs::write(&options.output, bytemuck::cast_slice(&y))?;
    Ok(())
}

async fn normalize(options: &Options, x: &[f32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let [samples, channels, ..] = options.shape[..] else {
        return Err(format!(
            "--shape has {} dimension(s), expected 2 or more",
            options.shape.len()
        )
        .into());
    };
    if options.ranks == 0 || samples % options.ranks != 0 {
        return Err(
            format!("{samples} samples cannot be cut over {} rank(s)", options.ranks).into()
        );
    }
    let config = BatchNormConfig::torch(channels).with_eps(options.eps).with_affine(false);
    let (devices, name) = devices(&options.adapter, options.ranks).await?;
    println!("{name}");
    let inputs = upload(options, x, &devices)?;
    let outputs = if options.on_device {
        BatchNorm::new(config, &devices[0])?.forward_train(&inputs)?.output
    } else {
        SyncBatchNorm::new(config, devices)?.forward_train(&inputs).await?.output
    };
    let mut y = Vec::with_capacity(x.len());
    for output in &outputs {
        y.extend(output.to_vec().await?);
    }
    Ok(y)
}

/// A device for each rank, and a name for all of them.
async fn devices(adapter: &str, ranks: usize) -> Result<(Vec<Device>, String), Box<dyn Error>> {
    if adapter == "host" {
        return Ok((vec![Device::host(); ranks], "host (CPU)".to_owned()));
    }
    let adapters = Device::adapters().await;
    let found = adapters.iter().find(|found| found.get_info().name.contains(adapter));
    let found = found.ok_or_else(|| format!("no adapter's name contains {adapter:?}"))?;
    let mut devices = Vec::with_capacity(ranks);
    for _ in 0..ranks {
        devices.push(Device::from_adapter(found).await?);
    }
    let info = found.get_info();
    Ok((devices, format!("{}, {} {}", info.name, info.driver, info.driver_info)))
}

/// Each rank's samples on its device.
fn upload(options: &Options, x: &[f32], devices: &[Device]) -> Result<Vec<Tensor>, syncbn::Error> {
    let mut dims = options.shape.clone();
    dims[0] /= devices.len();
    let parts = x.chunks(dims.iter().product::<usize>().max(1));
    devices.iter().zip(parts).map(|(device, part)| device.upload(&dims, part)).collect()
}
