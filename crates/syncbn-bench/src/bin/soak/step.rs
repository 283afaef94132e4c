//! One step of one rank, and whether what came out is normalized over the whole group.

use syncbn::{Backward, Error, ProcessGroup, SyncBatchNorm};
use syncbn_testkit::Random;

/// How far the mean of y may be from 0, and the mean of y² from 1. Values of x have variance 1 or
/// more, so eps takes 1e-5 of the latter; sums of f32 round by less than 1e-5 of their terms.
const TOLERANCE: f64 = 1e-3;

/// Forward and backward of one layer over a new shape. Every rank gives the same `number`.
pub async fn step(
    group: &ProcessGroup,
    layer: &SyncBatchNorm,
    number: u64,
) -> Result<Result<(), String>, Error> {
    // Every rank draws these alike.
    let mut drawn = Random::new(number);
    let channels = layer.config().num_features;
    let dims = [4 + drawn.below(5), channels, 1 + drawn.below(40)];
    let mut own = Random::new(number ^ (group.rank() as u64 + 1) << 48);
    let device = &layer.devices()[0];
    let values: usize = dims.iter().product();
    let mut draw = || (0..values).map(|_| 3.0 * own.normal() as f32 + 1.0).collect::<Vec<f32>>();
    let x = device.upload(&dims, &draw())?;
    let g = device.upload(&dims, &draw())?;
    let forward = layer.forward_train(&x).await?;
    let gradients = layer.backward(&forward.saved, Backward::of(&x, &g)).await?;
    let y = forward.output.to_vec().await?;
    let grad = gradients.input.to_vec().await?;
    let (sums, values) = sums(&y, &grad, &dims);
    judge(group, sums, values).await
}

/// Σ y and Σ y², and Σ of the gradient of x, of each channel; and the values of a channel.
fn sums(y: &[f32], grad: &[f32], dims: &[usize; 3]) -> (Vec<f64>, usize) {
    let [samples, channels, positions] = *dims;
    let mut sums = vec![0.0; 3 * channels];
    for (place, (y, grad)) in y.iter().zip(grad).enumerate() {
        let channel = place / positions % channels;
        let y = f64::from(*y);
        let grad = f64::from(*grad);
        sums[3 * channel] += y;
        sums[3 * channel + 1] += y * y;
        sums[3 * channel + 2] += grad;
    }
    (sums, samples * positions)
}

/// Over all ranks, y has mean 0 and mean square 1, and the gradient of x has the sum 0.
async fn judge(
    group: &ProcessGroup,
    sums: Vec<f64>,
    values: usize,
) -> Result<Result<(), String>, Error> {
    let mut sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
    group.all_reduce_sum([&mut sums]).await?;
    let values = (values * group.world_size()) as f64;
    for (channel, sums) in sums.as_chunks::<3>().0.iter().enumerate() {
        let [mean, square, grad] = sums.map(|sum| f64::from(sum) / values);
        let is_near = |value: f64| value.abs() < TOLERANCE;
        if ![mean, square - 1.0, grad].into_iter().all(is_near) {
            let what = format!(
                "channel {channel}: mean of y {mean}, of y² {square}, of the gradient {grad}"
            );
            return Ok(Err(what));
        }
    }
    Ok(Ok(()))
}
