//! Several layers that do not depend on each other, such as those of the branches of a block:
//! training, evaluation, backward and the exchange by itself, each with one message for all of
//! them. A layer gets the bits that it gets by itself.
//!
//! `cargo run --release --example several_layers`: the ranks are threads on the host.

use std::error::Error;

use futures::future::try_join_all;
use pollster::block_on;
use syncbn::collective::LocalGroup;
use syncbn::stats::GlobalStatistics;
use syncbn::{
    Backward, BatchNormConfig, Device, Gradients, Normalized, ProcessGroup, SyncBatchNorm, Tensor,
    joint,
};

const RANKS: usize = 2;
/// Channels of the layers.
const LAYERS: [usize; 3] = [1, 4, 6];

/// The results of the layers of a rank: outputs in training and in evaluation, gradients, and
/// statistics by themselves.
type Found = (Vec<Normalized>, Vec<Normalized>, Vec<Gradients>, Vec<GlobalStatistics>);
/// Their bits, and the statistics.
type Bits = (Vec<u32>, Vec<GlobalStatistics>);
type Way = fn(&[SyncBatchNorm], &[Tensor], &[Tensor]) -> Result<Found, syncbn::Error>;

fn main() -> Result<(), Box<dyn Error>> {
    let jointly = on_ranks(jointly)?;
    let one_by_one = on_ranks(one_by_one)?;
    for (rank, (jointly, one_by_one)) in jointly.iter().zip(&one_by_one).enumerate() {
        println!(
            "rank {rank}: {} values, the same bits in joint calls and one by one: {}",
            jointly.0.len(),
            jointly == one_by_one
        );
    }
    if jointly == one_by_one {
        Ok(())
    } else {
        Err("a layer of a joint call has other bits than by itself".into())
    }
}

fn jointly(layers: &[SyncBatchNorm], x: &[Tensor], dy: &[Tensor]) -> Result<Found, syncbn::Error> {
    block_on(async {
        let train = joint::forward_train(layers.iter().zip(x)).await?;
        let eval = joint::forward_eval(layers.iter().zip(x)).await?;
        let requests = x.iter().zip(dy).map(|(x, dy)| Backward::of(x, dy));
        let calls = layers
            .iter()
            .zip(&train)
            .zip(requests)
            .map(|((bn, train), request)| (bn, &train.saved, request));
        let gradients = joint::backward(calls).await?;
        // Steps before the exchange communicate with nobody, so they may run in any order.
        let local =
            try_join_all(layers.iter().zip(x).map(|(bn, x)| bn.local_statistics(x))).await?;
        let global = joint::synchronize(layers.iter().zip(local)).untracked().await?;
        Ok((train, eval, gradients, global))
    })
}

/// The plain way: layer by layer.
fn one_by_one(
    layers: &[SyncBatchNorm],
    x: &[Tensor],
    dy: &[Tensor],
) -> Result<Found, syncbn::Error> {
    let mut found: Found = Default::default();
    for ((bn, x), dy) in layers.iter().zip(x).zip(dy) {
        let train = block_on(bn.forward_train(x))?;
        found.1.push(block_on(bn.forward_eval(x))?);
        found.2.push(block_on(bn.backward(&train.saved, Backward::of(x, dy)))?);
        found.0.push(train);
        found.3.push(block_on(bn.synchronize(block_on(bn.local_statistics(x))?).untracked())?);
    }
    Ok(found)
}

fn rank(group: &ProcessGroup, way: Way) -> Result<Bits, syncbn::Error> {
    let host = Device::host();
    let mut layers = Vec::new();
    let mut x = Vec::new();
    let mut dy = Vec::new();
    for channels in LAYERS {
        layers.push(
            SyncBatchNorm::new(BatchNormConfig::torch(channels), [host.clone()])?
                .in_group(group)?,
        );
        let values = |phase: f32| {
            (0..8 * channels).map(|i| (1.7 * i as f32 + phase).sin()).collect::<Vec<f32>>()
        };
        x.push(host.upload(&[8, channels], &values(group.rank() as f32))?);
        dy.push(host.upload(&[8, channels], &values(3.0 + group.rank() as f32))?);
    }
    let (train, eval, gradients, global) = way(&layers, &x, &dy)?;
    let outputs = train
        .into_iter()
        .chain(eval)
        .map(|of| of.output)
        .chain(gradients.into_iter().map(|of| of.input));
    let mut bits = Vec::new();
    for output in outputs {
        bits.extend(block_on(output.to_vec())?.into_iter().map(f32::to_bits));
    }
    Ok((bits, global))
}

/// The same on every rank of a group, each a thread.
fn on_ranks(way: Way) -> Result<Vec<Bits>, Box<dyn Error>> {
    std::thread::scope(|scope| {
        let groups = LocalGroup::ranks(RANKS).into_iter().map(ProcessGroup::new);
        let threads: Vec<_> = groups.map(|group| scope.spawn(move || rank(&group, way))).collect();
        threads
            .into_iter()
            .map(|thread| Ok(thread.join().map_err(|_| "a rank panicked")??))
            .collect()
    })
}
