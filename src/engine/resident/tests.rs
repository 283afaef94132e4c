//! Mean and inverse deviation of a call on the device. Needs an adapter.

use pollster::block_on;

use super::super::{Layer, Source, View};
use super::*;
use crate::epilogue::Epilogue;
use crate::gpu::adapters;
use crate::shape::{Layout, Shape};
use crate::stats::RunningStats;

const CHANNELS: usize = 3;

fn values_of(device: &Device, slice: &BufferSlice) -> Vec<f32> {
    let read = gpu_of(device).expect("a GPU").submit_and_read("reading", device.deadline(), slice, |_| {});
    bytemuck::pod_collect_to_vec(&block_on(read).expect("values"))
}

/// A call over two ranks, (N, C) each.
fn call(device: &Device, ranks: [&[f32]; 2], normalizer: Normalizer) -> Centers {
    let running = RunningStats { mean: vec![2.0; CHANNELS], var: vec![0.25; CHANNELS], num_batches_tracked: 1 };
    let running = Running::new(device, Some(&running)).expect("running statistics");
    let dims = ranks.map(|values| [values.len() / CHANNELS, CHANNELS]);
    let shapes = dims.map(|dims| Shape::new(&dims, Layout::ChannelsFirst).expect("a shape"));
    let tensors = || [0, 1].map(|rank| device.upload(&dims[rank], ranks[rank]).expect("a tensor"));
    let (x, mut y) = (tensors(), tensors());
    let layer = Layer { weight: None, bias: None, epilogue: Epilogue::None, host_ranks: 1 };
    let rank = |((tensor, shape), y)| ForwardRank {
        x: Source::Apart(View { tensor, shape }),
        residual: None,
        layer,
        y,
        mask: None,
    };
    let ranks = x.iter().zip(&shapes).zip(&mut y).map(rank).collect();
    forward(device, ranks, CHANNELS, (0.0, normalizer), (&running, &Shares::default()), None).expect("a submission")
}

#[test]
fn a_call_keeps_mean_and_inverse_deviation_of_every_rank_until_it_is_dropped() {
    let adapter = block_on(adapters()).pop().expect("GPU tests need an adapter: run scripts/test.sh");
    let device = &block_on(Device::from_adapter(&adapter)).expect("a device");
    // Two samples each.
    let (first, second): (&[f32], &[f32]) = (&[1.0, 3.0, 0.0, 3.0, 3.0, 8.0], &[1.0, 7.0, f32::NAN, 3.0, 7.0, 1.0]);
    let batch = |apart| Normalizer::Batch { apart, following: None };
    let calls = [true, false].map(|apart| call(device, [first, second], batch(apart)));
    let evaluated = call(device, [first, second], Normalizer::Running);
    // What comes after finds other memory.
    call(device, [second, first], batch(false));
    let [apart, joint] = &calls;
    let nan = f32::NAN;
    for (centers, rank, mean, inv_std) in [
        (apart, 0, [2.0, 3.0, 4.0], [1.0, 0.0, 0.25]),
        (apart, 1, [2.0, 7.0, nan], [1.0, 0.0, nan]),
        (joint, 0, [2.0, 5.0, nan], [1.0, 0.5, nan]),
        (joint, 1, [2.0, 5.0, nan], [1.0, 0.5, nan]),
        (&evaluated, 1, [2.0; 3], [2.0; 3]),
    ] {
        let found = [centers.mean(rank), centers.inv_std(rank)].map(|slice| values_of(device, slice));
        // NaN is written as one too.
        assert_eq!(format!("{found:?}"), format!("{:?}", [mean, inv_std].map(|values| values.to_vec())), "rank {rank}");
        let read = block_on(centers.read(device)).expect("statistics");
        let read = &read[rank % read.len()];
        let [mean, inv_std] =
            [&read.mean, &read.inv_std].map(|values| values.iter().map(|&value| value as f32).collect());
        assert_eq!(format!("{found:?}"), format!("{:?}", [mean, inv_std] as [Vec<f32>; 2]), "rank {rank}");
    }
}
