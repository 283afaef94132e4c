//! One caller per rank: each thread has a part of the batch, and normalizes with the mean and the
//! variance of the whole batch. Processes do the same with the transport of `syncbn-mpi`.
//!
//! `cargo run --release --example ranks_in_threads`: on the host (CPU).

use std::{ops::Range, thread};

use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::{Backward, BatchNormConfig, Device, ProcessGroup, SyncBatchNorm};

type Error = Box<dyn std::error::Error + Send + Sync>;

const CHANNELS: usize = 2;
/// The samples of each rank: ranks may have different numbers of them, or none.
const PARTS: [Range<usize>; 3] = [0..5, 5..13, 13..13];

fn main() -> Result<(), Error> {
    let spawn = |(rank, part)| thread::spawn(|| block_on(step(ProcessGroup::new(rank), part)));
    let threads: Vec<_> = LocalGroup::ranks(3).into_iter().zip(PARTS).map(spawn).collect();
    let (whole_dx, whole_dw) = block_on(step(ProcessGroup::single(), 0..13))?;
    let mut dx_of_ranks = Vec::new();
    for (rank, thread) in threads.into_iter().enumerate() {
        let (dx, dw) = thread.join().map_err(|_| "a rank panicked")??;
        println!("rank {rank}: {} values, dw {dw:.4?}, of one rank {whole_dw:.4?}", dx.len());
        assert!(is_near(&dw, &whole_dw));
        dx_of_ranks.extend(dx);
    }
    assert!(is_near(&dx_of_ranks, &whole_dx));
    Ok(())
}

/// A step of training on one rank: forward, backward, and the sum of all ranks' gradients.
async fn step(group: ProcessGroup, part: Range<usize>) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let device = Device::host();
    let config = BatchNormConfig::torch(CHANNELS);
    let bn = SyncBatchNorm::new(config, [device.clone()])?.named("bn1").in_group(&group)?;
    let dims = [part.len(), CHANNELS];
    let indices = part.start * CHANNELS..part.end * CHANNELS;
    let values: Vec<f32> = indices.map(|i| 10.0 + (1.7 * i as f32).sin()).collect();
    let x = device.upload(&dims, &values)?;

    let forward = bn.forward_train(&x).await?;
    let y = forward.output.to_vec().await?;
    let dy: Vec<f32> = y.iter().map(|y| y.powi(3)).collect(); // of the loss Σ y⁴/4
    let dy = device.upload(&dims, &dy)?;
    let gradients = bn.backward(&forward.saved, Backward::of(&x, &dy)).await?;
    let mut dw = gradients.weight.ok_or("the layer has no weight")?.to_vec().await?;
    group.all_reduce_sum([&mut dw]).await?;
    Ok((gradients.input.to_vec().await?, dw))
}

fn is_near(found: &[f32], expected: &[f32]) -> bool {
    approx::abs_diff_eq!(*found, *expected, epsilon = 1e-5)
}
