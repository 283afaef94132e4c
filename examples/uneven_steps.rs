//! Ranks with different numbers of batches: one that has run out goes on with nothing, forward and
//! backward, until all have. A step in which nobody has a value tells every rank that it was the
//! last, so that no rank needs to know how many others have.
//!
//! `cargo run --release --example uneven_steps`: the ranks are threads on the host.

use std::error::Error;

use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::stats::{LocalGradientSums, LocalStatistics};
use syncbn::{Backward, BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};

const CHANNELS: usize = 3;
/// Samples in each batch of each rank.
const BATCHES: [&[usize]; 3] = [&[6, 6, 5], &[6], &[4, 4]];

/// y and the gradient of x of each batch, and the running variance at the end.
type Found = (Vec<[Vec<f32>; 2]>, Vec<f32>);

fn main() -> Result<(), Box<dyn Error>> {
    let found: Vec<Found> = std::thread::scope(|scope| {
        let groups = LocalGroup::ranks(BATCHES.len()).into_iter().map(ProcessGroup::new);
        let threads: Vec<_> =
            groups.map(|group| scope.spawn(move || block_on(rank(group)))).collect();
        let join = threads
            .into_iter()
            .map(|thread| Ok(thread.join().map_err(|_| "a rank panicked")??));
        join.collect::<Result<_, Box<dyn Error>>>()
    })?;

    // The plain way: one rank, which has the batches of all in every step.
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [Device::host()])?;
    let (mut all, mut plain): (Vec<f32>, Vec<f32>) = Default::default();
    for step in 0..3 {
        let batch: Vec<f32> =
            (0..BATCHES.len()).filter_map(|rank| load(rank, step)).flatten().collect();
        for (output, expected) in block_on(train(&bn, &batch))?.into_iter().enumerate() {
            let of_ranks = found.iter().filter_map(|(outputs, _)| outputs.get(step));
            all.extend(of_ranks.flat_map(|outputs| &outputs[output]));
            plain.extend(expected);
        }
    }
    for (_, var) in &found {
        all.extend(var);
        plain.extend(bn.running_stats().into_iter().flat_map(|running| running.var));
    }
    let differences = || all.iter().zip(&plain).map(|(a, b)| (a - b).abs());
    println!(
        "largest difference from one rank: {:.1e}, allowed 2e-5",
        differences().fold(0.0, f32::max)
    );
    let is_right = all.len() == plain.len() && differences().all(|difference| difference <= 2e-5);
    if is_right { Ok(()) } else { Err("the ranks have other values".into()) }
}

async fn rank(group: ProcessGroup) -> Result<Found, syncbn::Error> {
    let bn =
        SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [Device::host()])?.in_group(&group)?;
    let (mut outputs, mut idle) = (Vec::new(), 0);
    loop {
        match load(group.rank(), outputs.len()) {
            Some(batch) => outputs.push(train(&bn, &batch).await?),
            // Forward of the others; where they have nothing either, all stop here.
            None if bn.synchronize(LocalStatistics::empty(CHANNELS)).await?.count() == 0 => break,
            None => {
                // Backward of the others.
                bn.synchronize(LocalGradientSums::empty(CHANNELS)).await?;
                idle += 1;
            }
        }
    }
    println!("rank {}: {} steps with a batch, {idle} without", group.rank(), outputs.len());
    Ok((outputs, bn.running_stats().map(|running| running.var).unwrap_or_default()))
}

/// A step: y, and the gradient of x for the loss Σ y⁴/4.
async fn train(bn: &SyncBatchNorm, batch: &[f32]) -> Result<[Vec<f32>; 2], syncbn::Error> {
    let (host, dims) = (Device::host(), [batch.len() / CHANNELS, CHANNELS]);
    let x = host.upload(&dims, batch)?;
    let forward = bn.forward_train(&x).await?;
    let y = forward.output.to_vec().await?;
    let dy = host.upload(&dims, &y.iter().map(|y| y * y * y).collect::<Vec<_>>())?;
    let gradients = bn.backward(&forward.saved, Backward::of(&x, &dy)).await?;
    Ok([y, gradients.input.to_vec().await?])
}

/// A batch of (N, C), or `None` after a rank's last one.
fn load(rank: usize, step: usize) -> Option<Vec<f32>> {
    let values = BATCHES[rank].get(step)? * CHANNELS;
    Some((0..values).map(|i| (1 + rank + step) as f32 + (1.7 * i as f32).sin()).collect())
}
