//! The ranks as threads of one process: their shards, their devices, and the training of all.

use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use syncbn::collective::LocalGroup;
use syncbn::{Device, ProcessGroup};

use crate::model::Samples;
use crate::training::Rank;

/// How long a rank waits for the others: a step takes milliseconds, also on a software driver.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Why ranks cannot train.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    #[error("rank {rank} panicked")]
    Panicked { rank: usize },
}

/// Trains in one thread per device; the losses are those of the whole batch, the same on every
/// rank.
pub fn train(
    devices: &[Device],
    samples: &Samples,
    shards: &[Range<usize>],
    steps: usize,
) -> Result<Vec<f64>, Box<dyn Error>> {
    let ranks = LocalGroup::ranks(devices.len()).into_iter().zip(devices).zip(shards);
    let results: Vec<Option<Result<Vec<f64>, syncbn::Error>>> = std::thread::scope(|scope| {
        let threads = ranks.map(|((rank, device), shard)| {
            let group = ProcessGroup::new(rank).with_deadline(DEADLINE);
            let device = device.clone();
            let total = samples.len();
            let samples = samples.part(shard);
            let rank = Rank { group, device, samples, total };
            scope.spawn(move || pollster::block_on(rank.train(steps)))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    });
    let mut losses = Vec::with_capacity(results.len());
    for (rank, result) in results.into_iter().enumerate() {
        losses.push(result.ok_or(ThreadError::Panicked { rank })??);
    }
    // The command line leaves no way here without a rank.
    Ok(losses.swap_remove(0))
}

/// Shards of different sizes: the ranks get 1, 2, 1, 2 … parts of the batch.
pub fn cut(samples: usize, ranks: usize) -> Vec<Range<usize>> {
    let parts = |ranks: usize| ranks + ranks / 2;
    let end = |rank: usize| samples * parts(rank) / parts(ranks);
    (0..ranks).map(|rank| end(rank)..end(rank + 1)).collect()
}

pub fn sizes(shards: &[Range<usize>]) -> String {
    shards.iter().map(|shard| shard.len().to_string()).collect::<Vec<_>>().join(" + ")
}
