//! Ranks with different numbers of batches: one that has run out goes on without, forward and
//! backward, until all have.
//!
//! `cargo run --release --example uneven_steps`: the ranks are threads on the host.

use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::{Backward, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};

const CHANNELS: usize = 3;
/// Samples in each batch of each rank.
const BATCHES: [&[usize]; 3] = [&[6, 6, 5], &[6], &[4, 4]];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counters: Vec<u64> = std::thread::scope(|scope| {
        let groups = LocalGroup::ranks(BATCHES.len()).into_iter().map(ProcessGroup::new);
        let threads: Vec<_> =
            groups.map(|group| scope.spawn(move || block_on(rank(&group)))).collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err("a rank panicked".into()),
        });
        results.collect::<Result<_, Box<dyn std::error::Error>>>()
    })?;
    if counters == [3, 3, 3] { Ok(()) } else { Err(format!("steps: {counters:?}").into()) }
}

/// The steps that the layer has counted.
async fn rank(group: &ProcessGroup) -> Result<u64, Error> {
    let host = Device::host();
    let config = BatchNormConfig::torch(CHANNELS);
    let bn = SyncBatchNorm::new(config, [host.clone()])?.in_group(group)?;
    let mut steps = group.uneven_steps(BATCHES[group.rank()]);
    let mut without = 0;
    while let Some(batch) = steps.next().await? {
        without += usize::from(batch.is_none());
        let samples = batch.copied().unwrap_or(0);
        let values: Vec<f32> = (0..samples * CHANNELS).map(|i| (1.7 * i as f32).sin()).collect();
        let x = host.upload(&[samples, CHANNELS], &values)?;
        let forward = bn.forward_train(&x).await?;
        // The loss is half the sum of y², so that its gradient is y.
        bn.backward(&forward.saved, Backward::of(&x, &forward.output)).await?;
    }
    println!(
        "rank {}: {} steps with a batch, {without} without",
        group.rank(),
        BATCHES[group.rank()].len()
    );
    Ok(bn.running_stats().map_or(0, |running| running.num_batches_tracked))
}
