//! Micro-batches that are never in memory together, normalized as one batch: forward and backward,
//! with the gradients of weight and bias accumulated in place. Each batch is loaded when a step
//! needs it and dropped after it.
//!
//! `cargo run --release --example micro_batches`

use std::error::Error;

use pollster::block_on;
use syncbn::stats::{LocalGradientSums, LocalStatistics};
use syncbn::{Backward, BatchNormConfig, Device, SyncBatchNorm, Tensor};

const CHANNELS: usize = 3;
/// Samples of each batch: they differ, and one batch has none.
const SIZES: [usize; 4] = [5, 1, 0, 8];

fn main() -> Result<(), Box<dyn Error>> {
    block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let host = Device::host();
    let mut bn = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [host.clone()])?;
    bn.set_parameters(Some(&[0.5, 1.0, 2.0]), Some(&[0.0, -1.0, 1.0]))?;

    // Forward: the statistics of all batches, then their outputs.
    let mut local = LocalStatistics::empty(CHANNELS);
    for batch in 0..SIZES.len() {
        local.merge(&bn.local_statistics(&load(batch)?).await?)?;
    }
    let global = bn.synchronize(local).await?;
    let (mut y, mut saved) = (Vec::new(), Vec::new());
    for batch in 0..SIZES.len() {
        let forward = bn.normalize(&load(batch)?, &global).await?;
        y.push(forward.output.to_vec().await?);
        saved.push(forward.saved);
    }

    // Backward: the sums of all batches, then the gradients of their inputs. What is loaded again
    // is another tensor with the same values: `recomputed` says so.
    let (mut dw, mut db) = (host.zeros(&[CHANNELS])?, host.zeros(&[CHANNELS])?);
    let mut sums = LocalGradientSums::empty(CHANNELS);
    for (batch, saved) in saved.iter().enumerate() {
        let (x, dy) = (load(batch)?, loss_gradient(&y[batch])?);
        let request = Backward::of(&x, &dy)
            .recomputed()
            .weight_gradient(&mut dw)
            .bias_gradient(&mut db)
            .accumulate();
        sums.merge(&bn.local_gradient_sums(saved, request).await?)?;
    }
    let sums = bn.synchronize(sums).await?;
    let mut dx = Vec::new();
    for (batch, saved) in saved.iter().enumerate() {
        let (x, mut dy) = (load(batch)?, loss_gradient(&y[batch])?);
        bn.input_gradients(saved, Backward::in_place(&x, &mut dy).recomputed(), &sums).await?;
        dx.extend(dy.to_vec().await?);
    }

    // The plain way: one batch.
    let x = host.upload(&[SIZES.iter().sum(), CHANNELS], &values(0..SIZES.iter().sum()))?;
    let forward = bn.forward_train(&x).await?;
    let dy = loss_gradient(&forward.output.to_vec().await?)?;
    let backward = bn.backward(&forward.saved, Backward::of(&x, &dy)).await?;
    let (weight, bias) = (backward.weight.ok_or("no weight")?, backward.bias.ok_or("no bias")?);
    compare("y", &y.concat(), &forward.output.to_vec().await?)?;
    compare("gradient of x", &dx, &backward.input.to_vec().await?)?;
    compare("gradient of the weight", &dw.to_vec().await?, &weight.to_vec().await?)?;
    compare("gradient of the bias", &db.to_vec().await?, &bias.to_vec().await?)?;
    Ok(())
}

/// A batch of (N, C), as from a file.
fn load(batch: usize) -> Result<Tensor, syncbn::Error> {
    let first: usize = SIZES[..batch].iter().sum();
    Device::host().upload(&[SIZES[batch], CHANNELS], &values(first..first + SIZES[batch]))
}

fn values(samples: std::ops::Range<usize>) -> Vec<f32> {
    (samples.start * CHANNELS..samples.end * CHANNELS)
        .map(|i| 10.0 + 0.1 * i as f32 + (1.7 * i as f32).sin())
        .collect()
}

/// The gradient of Σ y⁴/4.
fn loss_gradient(y: &[f32]) -> Result<Tensor, syncbn::Error> {
    let values: Vec<f32> = y.iter().map(|y| y * y * y).collect();
    Device::host().upload(&[y.len() / CHANNELS, CHANNELS], &values)
}

/// In units of the largest value.
fn compare(what: &str, found: &[f32], expected: &[f32]) -> Result<(), String> {
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let allowed = 1e-6 * largest(&mut expected.iter().map(|value| value.abs()));
    let differences = || found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let is_within =
        found.len() == expected.len() && differences().all(|difference| difference <= allowed);
    println!(
        "{what}: largest difference {:.1e}, allowed {allowed:.1e}",
        largest(&mut differences())
    );
    if is_within { Ok(()) } else { Err(format!("{what} is wrong")) }
}
