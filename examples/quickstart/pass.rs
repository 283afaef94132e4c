//! One pass through the layer: shards up, forward, outputs down, with the time of each phase.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use syncbn::{DeviceGroup, Error, ForwardReport, Tensor};

use crate::batch::Batch;

/// What a pass gives.
#[derive(Debug)]
pub struct Pass {
    /// y of all shards one after the other, which is y of the whole batch, (N, 3, H, W).
    pub y: Vec<f32>,
    pub report: ForwardReport,
    pub times: Times,
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

/// Normalizes the `shards` of `batch`, shard r on device r of `group`.
pub async fn run(group: &mut DeviceGroup, batch: &Batch, shards: &[Range<usize>]) -> Result<Pass, Error> {
    let clock = Instant::now();
    let mut inputs = Vec::with_capacity(shards.len());
    for (device, shard) in group.devices().iter().zip(shards) {
        inputs.push(device.upload(&batch.dims(shard.len()), batch.values(shard))?);
    }
    finish(group).await?;
    let upload = clock.elapsed();

    let forward = group.forward_train(&inputs).await?;
    let clock = Instant::now();
    finish(group).await?;
    let timing = &forward.report.timing;
    let (statistics, merge, normalize) = (timing.statistics, timing.merge, timing.apply + clock.elapsed());

    let clock = Instant::now();
    let outputs = try_join_all(forward.outputs.iter().map(Tensor::to_vec)).await?;
    let download = clock.elapsed();

    let times = Times { upload, statistics, merge, normalize, download };
    Ok(Pass { y: outputs.concat(), report: forward.report, times })
}

/// Waits until every device has done what was submitted, so that the next phase starts on idle devices.
async fn finish(group: &DeviceGroup) -> Result<(), Error> {
    for device in group.devices() {
        device.wait().await?;
    }
    Ok(())
}
