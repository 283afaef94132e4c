//! Running statistics on the device, over several steps, and the modes of a call, against a layer
//! that merges on the host.

use approx::abs_diff_eq;
use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Forward, Tensor,
    config::{AffineGradient, Momentum, RunningVariance},
};

use super::common::*;
use super::one_gpu::on_host;

const CHANNELS: usize = 5;

/// Uneven ranks, one of them empty in turn, of the values of a step.
fn step(seed: u64) -> Vec<Batch> {
    let mut random = Random::new(seed);
    let mut dims = [vec![3, CHANNELS, 7], vec![2, CHANNELS, 401], vec![1, CHANNELS, 1]];
    dims[seed as usize % 3][0] = 0;
    dims.iter().map(|dims| Batch::new(dims, |_| (3.0 + 2.0 * random.next()) as f32)).collect()
}

fn upload_to(device: &syncbn::Device, batches: &[Batch]) -> Vec<Tensor> {
    batches.iter().map(|batch| batch.upload(device)).collect()
}

/// Both are f32: up to five steps of three roundings each, of at most half an ulp of values up to 5
/// in size, whose weights add up to less than two.
fn assert_close(what: &str, found: &RunningStats, expected: &RunningStats) {
    assert_eq!(found.num_batches_tracked, expected.num_batches_tracked, "{what}");
    for (found, expected) in [(&found.mean, &expected.mean), (&found.var, &expected.var)] {
        for (found, expected) in found.iter().zip(expected) {
            let allowed = STATISTICS_TOLERANCE * (f64::from(expected.abs()) + 2.0);
            assert!(
                f64::from((found - expected).abs()) <= allowed,
                "{what}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn running_statistics_follow_every_momentum_and_variance_over_several_steps() {
    let device = &virtual_gpus()[0];
    let momenta = [0.0, 0.1, 1.0].map(Momentum::NewWeight);
    for momentum in momenta.into_iter().chain([Momentum::Decay(0.9), Momentum::Cumulative]) {
        for variance in [RunningVariance::Unbiased, RunningVariance::Biased] {
            let config = BatchNormConfig::torch(CHANNELS)
                .with_momentum(momentum)
                .with_running_variance(variance);
            let expected = on_host(&config, device, 3);
            let layer = BatchNorm::new(config, device).unwrap();
            for seed in 0..5 {
                let inputs = upload_to(device, &step(seed));
                block_on(expected.forward_train(&inputs)).unwrap();
                layer.forward_train(&inputs).unwrap();
                // Neither of these counts.
                layer.forward_train(Forward::of(&inputs).untracked()).unwrap();
                layer.forward_eval(&inputs).unwrap();
                let found = block_on(layer.running_stats()).unwrap().unwrap();
                let expected = expected.running_stats().unwrap();
                assert_close(
                    &format!("{momentum:?}, {variance:?}, step {seed}"),
                    &found,
                    &expected,
                );
            }
        }
    }
}

#[test]
fn a_counter_goes_on_beyond_32_bits() {
    let device = &virtual_gpus()[0];
    let config = BatchNormConfig::torch(CHANNELS).with_momentum(Momentum::Cumulative);
    let mut layer = BatchNorm::new(config, device).unwrap();
    let batches = (1 << 32) - 2;
    layer
        .set_running_stats(RunningStats {
            num_batches_tracked: batches,
            ..RunningStats::new(CHANNELS)
        })
        .unwrap();
    for steps in 1..=3 {
        layer.forward_train(&upload_to(device, &step(steps))).unwrap();
        let running = block_on(layer.running_stats()).unwrap().unwrap();
        assert_eq!(running.num_batches_tracked, batches + steps);
        assert!(
            running.mean.iter().all(|mean| abs_diff_eq!(*mean, 0.0, epsilon = 1e-6)),
            "{running:?}"
        );
    }
}

#[test]
fn a_batch_without_values_leaves_everything_as_it_was() {
    let device = &virtual_gpus()[0];
    let layer = BatchNorm::new(BatchNormConfig::torch(CHANNELS), device).unwrap();
    let before = block_on(layer.running_stats()).unwrap();
    let empty = || [[0, CHANNELS, 7], [3, CHANNELS, 0]].map(|dims| device.zeros(&dims).unwrap());
    let inputs = empty();
    let forward = layer.forward_train(&inputs).unwrap();
    let backward = layer.backward(&forward.saved, Backward::of(&inputs, &empty())).unwrap();
    assert_eq!(read(&forward.output), [[0f32; 0]; 2]);
    assert_eq!(read(&backward.input), [[0f32; 0]; 2]);
    for gradients in [backward.weight.unwrap(), backward.bias.unwrap()] {
        assert_eq!(read(&gradients), [[0.0; CHANNELS]; 2]);
    }
    assert_eq!(block_on(layer.running_stats()).unwrap(), before);
}

/// Which calls take which statistics, and whether running ones are updated: as of a layer that
/// merges on the host.
#[test]
fn every_mode_takes_the_statistics_that_it_takes_where_the_host_merges() {
    let device = &virtual_gpus()[0];
    let base = BatchNormConfig::torch(CHANNELS);
    let configs = [
        base.clone(),
        base.clone().with_track_running_stats(false),
        base.clone().with_use_batch_statistics(Some(true)),
        base.clone().with_use_batch_statistics(Some(false)),
        base.clone().with_use_batch_statistics(Some(true)).with_track_running_stats(false),
    ];
    let gradients = [AffineGradient::Local, AffineGradient::GroupSum, AffineGradient::GroupMean];
    for (turn, config) in configs.into_iter().enumerate() {
        let config = config.with_affine_gradient(gradients[turn % 3]);
        let what = format!("{config:?}");
        let mut on_host = on_host(&config, device, 3);
        let mut layer = BatchNorm::new(config, device).unwrap();
        let parameters = Parameters::random(CHANNELS, &mut Random::new(4));
        parameters.set(&mut on_host);
        layer.set_parameters(Some(&parameters.weight), Some(&parameters.bias)).unwrap();
        for seed in [0, 1] {
            let inputs = upload_to(device, &step(seed));
            let g: Vec<Batch> = step(seed + 9).into_iter().collect();
            let g: Vec<Tensor> = g
                .iter()
                .zip(&inputs)
                .map(|(g, x)| {
                    let random = &mut Random::new(g.values.len() as u64 + seed);
                    Batch::random(x.dims(), random).upload(device)
                })
                .collect();
            for trains in [true, false] {
                let (expected, found) = match trains {
                    true => (
                        block_on(on_host.forward_train(&inputs)).unwrap(),
                        layer.forward_train(&inputs).unwrap(),
                    ),
                    false => (
                        block_on(on_host.forward_eval(&inputs)).unwrap(),
                        layer.forward_eval(&inputs).unwrap(),
                    ),
                };
                // Each rank its own, or one for all.
                let means = [0, 1, 2]
                    .map(|rank| std::ptr::from_ref(found.saved.mean_and_inv_std(rank).unwrap()[0]));
                let differ = means[0] != means[1] && means[1] != means[2] && means[0] != means[2];
                assert_eq!(
                    (differ, !differ),
                    (!trains && turn == 1, means == [means[0]; 3]),
                    "{what}"
                );
                // Values of y up to 3 in size, and both within 16 ulp of the definition.
                let close = |name: &str, found: &[Tensor], expected: &[Tensor], size: f32| {
                    let pairs = read(found).concat().into_iter().zip(read(expected).concat());
                    for (found, expected) in pairs {
                        let allowed = 32.0 * f32::EPSILON * (size + expected.abs());
                        assert!(
                            abs_diff_eq!(found, expected, epsilon = allowed),
                            "{what}: {name} {found}, expected {expected}"
                        );
                    }
                };
                close("y", &found.output, &expected.output, 3.0);
                let expected =
                    block_on(on_host.backward(&expected.saved, Backward::of(&inputs, &g))).unwrap();
                let found = layer.backward(&found.saved, Backward::of(&inputs, &g)).unwrap();
                close("dx", &found.input, &expected.input, 3.0);
                // Sums of up to 823 values, of |g| below 1 and |x − mean|·inv_std below 3: their
                // absolute values add up to less.
                close("dw", &found.weight.unwrap(), &expected.weight.unwrap(), 823.0);
                close("db", &found.bias.unwrap(), &expected.bias.unwrap(), 411.0);
            }
        }
        match (block_on(layer.running_stats()).unwrap(), on_host.running_stats()) {
            (Some(found), Some(expected)) => assert_close(&what, &found, &expected),
            (found, expected) => assert_eq!(found, expected, "{what}"),
        }
    }
}
