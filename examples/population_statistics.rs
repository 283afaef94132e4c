//! Exact statistics of a whole data set, of which each rank has a part: merged batch by batch,
//! exchanged once, and set as running statistics before evaluation, in place of a moving average.
//!
//! `cargo run --release --example population_statistics`: the ranks are threads on the host.

use std::error::Error;

use approx::abs_diff_eq;
use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::stats::{LocalStatistics, Moments, RunningStats};
use syncbn::{BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};

const CHANNELS: usize = 3;
/// Samples in the batches of each rank: as many as there happen to be.
const BATCHES: [&[usize]; 3] = [&[8, 8, 8, 3], &[8, 1], &[]];

fn main() -> Result<(), Box<dyn Error>> {
    let found: Vec<Option<RunningStats>> = std::thread::scope(|scope| {
        let groups = LocalGroup::ranks(BATCHES.len()).into_iter().map(ProcessGroup::new);
        let threads: Vec<_> =
            groups.map(|group| scope.spawn(move || block_on(rank(group)))).collect();
        let join = threads
            .into_iter()
            .map(|thread| Ok(thread.join().map_err(|_| "a rank panicked")??));
        join.collect::<Result<_, Box<dyn Error>>>()
    })?;

    // The plain way: all values of a channel in one list.
    let batches = (0..BATCHES.len())
        .flat_map(|rank| (0..BATCHES[rank].len()).map(move |batch| (rank, batch)));
    let values: Vec<f32> = batches.flat_map(|(rank, batch)| load(rank, batch)).collect();
    let of_channel =
        |channel| values.iter().skip(channel).step_by(CHANNELS).copied().map(f64::from);
    let expected: Vec<Moments> =
        (0..CHANNELS).map(|channel| Moments::from_values(of_channel(channel))).collect();
    let is_near = |found: f32, expected: f64| {
        abs_diff_eq!(f64::from(found), expected, epsilon = 1e-6 * expected.abs())
    };
    for (rank, running) in found.iter().enumerate() {
        let running = running.as_ref().ok_or("no running statistics")?;
        println!("rank {rank}: mean {:?}, variance {:?}", running.mean, running.var);
        let mut channels = running.mean.iter().zip(&running.var).zip(&expected);
        if !channels
            .all(|((mean, var), of)| is_near(*mean, of.mean) && is_near(*var, of.var_unbiased()))
        {
            return Err(format!("expected is {expected:?}").into());
        }
    }
    println!("all as of one list of {} samples", expected[0].count);
    Ok(())
}

/// The running statistics of a rank, once they are those of the data set.
async fn rank(group: ProcessGroup) -> Result<Option<RunningStats>, syncbn::Error> {
    let host = Device::host();
    let mut bn =
        SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [host.clone()])?.in_group(&group)?;
    let mut local = LocalStatistics::empty(CHANNELS);
    for (batch, &samples) in BATCHES[group.rank()].iter().enumerate() {
        let x = host.upload(&[samples, CHANNELS], &load(group.rank(), batch))?;
        local.merge(&bn.local_statistics(&x).await?)?;
    }
    bn.set_population_statistics(local).await?;
    Ok(bn.running_stats())
}

/// A batch of (N, C), as from a file: means that are large beside the deviations.
fn load(rank: usize, batch: usize) -> Vec<f32> {
    let values = BATCHES[rank][batch] * CHANNELS;
    (0..values)
        .map(|i| 1000.0 * (1 + i % CHANNELS) as f32 + (1.7 * i as f32 + rank as f32).sin())
        .collect()
}
