//! One pass through the layer: shards up, forward, outputs down, with the time of each phase.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use syncbn::stats::{GlobalStatistics, Moments};
use syncbn::{Error, Saved, SyncBatchNorm, Tensor};

use crate::batch::Batch;

/// What a pass gives.
#[derive(Debug)]
pub struct Pass {
    /// y of all shards one after the other, which is y of the whole batch, (N, 3, H, W).
    pub y: Vec<f32>,
    pub times: Times,
    /// What the layer keeps of the call: the statistics are in it.
    saved: Saved,
}

impl Pass {
    /// Moments of each rank's channels.
    pub fn local(&self) -> &[Vec<Moments>] {
        self.saved.report().map_or(&[], |report| report.local.ranks())
    }

    /// Moments of the channels over all ranks, with which every rank was normalized.
    pub fn global(&self) -> &[Moments] {
        self.saved.statistics().map_or(&[], GlobalStatistics::channels)
    }
}

/// Time of each phase until the last device is done with it.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub upload: Duration,
    pub statistics: Duration,
    pub merge: Duration,
    pub normalize: Duration,
    pub download: Duration,
}

/// Normalizes the `shards` of `batch`, shard r on device r of `layer`.
pub async fn run(
    layer: &SyncBatchNorm,
    batch: &Batch,
    shards: &[Range<usize>],
) -> Result<Pass, Error> {
    let clock = Instant::now();
    let mut inputs = Vec::with_capacity(shards.len());
    for (device, shard) in layer.devices().iter().zip(shards) {
        inputs.push(device.upload(&batch.dims(shard.len()), batch.values(shard))?);
    }
    finish(layer).await?;
    let upload = clock.elapsed();

    let forward = layer.forward_train(&inputs).await?;
    let clock = Instant::now();
    finish(layer).await?;
    let times = forward.saved.report().map(|report| report.times).unwrap_or_default();
    let (statistics, merge, normalize) =
        (times.local, times.synchronize, times.apply + clock.elapsed());

    let clock = Instant::now();
    let outputs = try_join_all(forward.output.iter().map(Tensor::to_vec)).await?;
    let download = clock.elapsed();

    let times = Times { upload, statistics, merge, normalize, download };
    Ok(Pass { y: outputs.concat(), times, saved: forward.saved })
}

/// Waits until every device has done what was submitted, so that the next phase starts on idle
/// devices.
async fn finish(layer: &SyncBatchNorm) -> Result<(), Error> {
    for device in layer.devices() {
        device.wait().await?;
    }
    Ok(())
}
