//! Mean and inverse deviation of a call, as the application finds them on the device.

use approx::assert_abs_diff_eq;
use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{BatchNorm, BatchNormConfig, Device, Saved, Tensor};

use super::common::*;

const CHANNELS: usize = 3;
/// Of two ranks, two samples each: the second channel is constant on each rank, the third is not
/// finite on the second rank.
const X: [[f32; 6]; 2] = [[1.0, 3.0, 0.0, 3.0, 3.0, 8.0], [1.0, 7.0, f32::NAN, 3.0, 7.0, 1.0]];

fn tensors(device: &Device, values: [[f32; 6]; 2]) -> [Tensor; 2] {
    values.map(|values| device.upload(&[2, CHANNELS], &values).unwrap())
}

/// Mean and inverse deviation of a rank.
fn values_of(saved: &Saved, rank: usize) -> [Vec<f32>; 2] {
    saved.mean_and_inv_std(rank).unwrap().map(|of| block_on(of.to_vec()).unwrap())
}

#[test]
fn a_call_keeps_mean_and_inverse_deviation_of_every_rank_until_it_is_dropped() {
    let device = &virtual_gpus()[0];
    let config = BatchNormConfig::torch(CHANNELS).with_eps(0.0);
    let mut layer = BatchNorm::new(config.clone(), device).unwrap();
    let running = RunningStats {
        mean: vec![2.0; CHANNELS],
        var: vec![0.25; CHANNELS],
        num_batches_tracked: 1,
    };
    layer.set_running_stats(running).unwrap();
    // Without running statistics each rank evaluates with its own batch.
    let untracking = BatchNorm::new(config.with_track_running_stats(false), device).unwrap();
    let x = tensors(device, X);
    let evaluated = layer.forward_eval(&x).unwrap().saved;
    let joint = layer.forward_train(&x).unwrap().saved;
    let per_rank = untracking.forward_eval(&x).unwrap().saved;
    // What comes after finds other memory.
    let [first, second] = X;
    let later = tensors(device, [second, first]);
    for layer in [&layer, &untracking] {
        layer.forward_train(&later).unwrap();
        layer.forward_eval(&later).unwrap();
    }
    let nan = f32::NAN;
    for (saved, rank, mean, inv_std) in [
        (&per_rank, 0, [2.0, 3.0, 4.0], [1.0, 0.0, 0.25]),
        (&per_rank, 1, [2.0, 7.0, nan], [1.0, 0.0, nan]),
        (&joint, 0, [2.0, 5.0, nan], [1.0, 0.5, nan]),
        (&joint, 1, [2.0, 5.0, nan], [1.0, 0.5, nan]),
        (&evaluated, 0, [2.0; 3], [2.0; 3]),
        (&evaluated, 1, [2.0; 3], [2.0; 3]),
    ] {
        // NaN is written as one too.
        let expected = format!("{:?}", [mean, inv_std].map(|values| values.to_vec()));
        assert_eq!(format!("{:?}", values_of(saved, rank)), expected, "rank {rank}");
        assert!(saved.mean_and_inv_std(2).is_none());
    }
}

#[test]
fn a_clone_keeps_them_too_and_they_are_vectors_of_channels() {
    let device = &virtual_gpus()[0];
    let layer = BatchNorm::new(BatchNormConfig::torch(CHANNELS), device).unwrap();
    let x = tensors(device, X);
    let saved = layer.forward_train(&x).unwrap().saved;
    let expected = format!("{:?}", values_of(&saved, 0));
    let clone = saved.clone();
    drop(saved);
    for _ in 0..3 {
        drop(layer.forward_train(&tensors(device, [X[1], X[1]])).unwrap());
    }
    assert_eq!(format!("{:?}", values_of(&clone, 0)), expected);
    for tensor in clone.mean_and_inv_std(1).unwrap() {
        assert_eq!((tensor.dims(), tensor.dtype()), (&[CHANNELS][..], syncbn::DType::F32));
        assert_eq!((tensor.device(), tensor.binding().unwrap().size.unwrap().get()), (device, 12));
    }
}

#[test]
fn a_handle_of_the_mean_outlives_what_was_saved() {
    let device = &virtual_gpus()[0];
    let layer = BatchNorm::new(BatchNormConfig::torch(1), device).unwrap();
    let tensor = |values: &[f32]| device.upload(&[values.len(), 1], values).unwrap();
    let saved = layer.forward_train(&tensor(&[1.0, 3.0])).unwrap().saved;
    let [mean, inv_std] = saved.mean_and_inv_std(0).unwrap().map(|tensor| tensor.handle().unwrap());
    drop(saved);
    for step in 0..4 {
        layer.forward_train(&tensor(&[10.0 + step as f32, 20.0])).unwrap();
    }
    assert_eq!(read(&[mean])[0], [2.0]);
    assert_abs_diff_eq!(read(&[inv_std])[0][0], 1.0, epsilon = 1e-4);
}
