//! The rows of "what happens when" that concern forward, on every kind of group.

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{BatchNormConfig, Error, Forward, Saved, SyncBatchNorm, error::BatchError};

use super::common::*;
use super::{EPS, check, layer};

#[test]
fn ranks_of_different_batch_and_spatial_size_are_weighted_by_their_values() {
    for kind in Kind::ALL {
        let mut random = Random::new(30);
        let dims: [&[usize]; 4] = [&[1, 3, 2, 2], &[6, 3, 5, 9], &[2, 3], &[3, 3, 1001]];
        // Means far apart, so that a mean of means would be far off.
        let batches: Vec<Batch> = (0..4)
            .map(|rank| Batch::new(dims[rank], |_| (10.0 * rank as f64 + random.next()) as f32))
            .collect();
        check(kind, &batches, &mut random).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

#[test]
fn an_empty_rank_gets_empty_outputs_and_changes_nothing() {
    for kind in Kind::ALL {
        let full = [
            Batch::random(&[3, 4, 5], &mut Random::new(31)),
            Batch::random(&[2, 4, 5], &mut Random::new(32)),
        ];
        let without = layer(kind, 2, 4);
        let expected = block_on(without.forward_train(&upload(&without, &full))).unwrap();
        // No sample, and no position, each at every place among the ranks.
        for empty in [[0, 4, 5], [3, 4, 0]] {
            for place in 0..3 {
                let mut batches = full.to_vec();
                batches.insert(place, Batch::new(&empty, |_| 0.0));
                let mut devices = without.devices().to_vec();
                devices.insert(place, kind.devices(1).remove(0));
                let with = SyncBatchNorm::new(BatchNormConfig::torch(4), devices).unwrap();
                let mut forward = block_on(with.forward_train(&upload(&with, &batches))).unwrap();
                let output = forward.output.remove(place);
                assert_eq!(output.dims(), empty);
                assert!(block_on(output.to_vec()).unwrap().is_empty());
                assert_eq!(
                    bits(&read(&forward.output)),
                    bits(&read(&expected.output)),
                    "{kind:?}, place {place}"
                );
                assert_eq!(
                    forward.saved.report().unwrap().local.ranks()[place],
                    [syncbn::stats::Moments::EMPTY; 4]
                );
                assert_eq!(with.running_stats(), without.running_stats());
            }
        }
    }
}

#[test]
fn a_group_without_any_value_keeps_its_running_statistics_and_makes_no_nan() {
    for kind in Kind::ALL {
        let layer = layer(kind, 3, 2);
        let step = [Batch::random(&[3, 2, 4], &mut Random::new(33)), empty(), empty()];
        block_on(layer.forward_train(&upload(&layer, &step))).unwrap();
        let before = layer.running_stats();
        let inputs = upload(&layer, &[empty(), empty(), empty()]);
        let forward = block_on(layer.forward_train(&inputs)).unwrap();
        assert_eq!(read(&forward.output), vec![Vec::<f32>::new(); 3]);
        assert_eq!(layer.running_stats(), before);
        assert_eq!(before.unwrap().num_batches_tracked, 1);
        let global = forward.saved.statistics().unwrap();
        assert_eq!(global.count(), 0);
        assert!(global.channels().iter().all(|channel| channel.mean == 0.0 && channel.m2 == 0.0));
        assert!(global.inv_std(EPS).iter().all(|inv_std| inv_std.is_finite()));
        let evaluated = block_on(layer.forward_eval(&inputs)).unwrap();
        assert_eq!(read(&evaluated.output), vec![Vec::<f32>::new(); 3]);
    }
}

fn empty() -> Batch {
    Batch::new(&[0, 2, 4], |_| 0.0)
}

#[test]
fn one_value_per_rank_is_normal_where_the_group_has_two() {
    for kind in Kind::ALL {
        let layer =
            SyncBatchNorm::new(BatchNormConfig::torch(1).with_eps(0.0), kind.devices(2)).unwrap();
        let batches = [Batch::new(&[1, 1], |_| 3.0), Batch::new(&[1, 1, 1, 1], |_| 7.0)];
        let forward = block_on(layer.forward_train(&upload(&layer, &batches))).unwrap();
        assert_eq!(read(&forward.output), [[-1.0], [1.0]], "{kind:?}");
        let running =
            RunningStats { mean: vec![0.5], var: vec![0.9 + 0.1 * 8.0], num_batches_tracked: 1 };
        assert_eq!(layer.running_stats(), Some(running.clone()), "{kind:?}");
    }
}

#[test]
fn one_value_in_the_whole_group_is_an_error_in_training_and_changes_nothing() {
    for kind in Kind::ALL {
        for ranks in [1, 3] {
            let mut layer = layer(kind, ranks, 2);
            let running =
                RunningStats { mean: vec![1.0, 2.0], var: vec![3.0, 4.0], num_batches_tracked: 5 };
            layer.set_running_stats(running.clone()).unwrap();
            // The value lies on the last rank.
            let mut batches = vec![empty(); ranks];
            batches[ranks - 1] = Batch::new(&[1, 2, 1], |c| [2.0, 6.0][c]);
            let inputs = upload(&layer, &batches);
            let error = block_on(layer.forward_train(&inputs)).unwrap_err();
            assert_eq!(error, Error::Batch(BatchError::OneValue));
            assert!(
                error.to_string().contains("x has 1 value per channel over all ranks"),
                "{error}"
            );
            assert_eq!(layer.running_stats(), Some(running.clone()));
            // Evaluation does not mind.
            let y = read(&block_on(layer.forward_eval(&inputs)).unwrap().output);
            let expected = definition_with(&batches, None, &[1.0, 2.0], &[3.0, 4.0], EPS);
            compare(&batches, &y, &expected, TOLERANCE_ULP).unwrap();
            assert_eq!(layer.running_stats(), Some(running.clone()));
        }
    }
}

#[test]
fn a_group_of_one_is_local_batch_normalization() {
    for kind in [Kind::Gpu, Kind::Host] {
        let mut random = Random::new(34);
        let batch = Batch::random(&[5, 3, 11], &mut random);
        check(kind, &[batch], &mut random).unwrap();
    }
}

#[test]
fn a_channel_that_is_not_finite_on_one_rank_is_nan_on_every_rank_and_spares_the_others() {
    // Several tiles with several channels per workgroup, one tile per channel, and one tile per
    // workgroup.
    for dims in [vec![2, 3, 5001], vec![5, 3], vec![700, 3, 2]] {
        for kind in Kind::ALL {
            let mut random = Random::new(35);
            let clean: Vec<Batch> = (0..3).map(|_| Batch::random(&dims, &mut random)).collect();
            let parameters = Parameters::random(3, &mut random);
            let step = |batches: &[Batch]| {
                let mut layer = layer(kind, 3, 3);
                parameters.set(&mut layer);
                let forward = block_on(layer.forward_train(&upload(&layer, batches))).unwrap();
                (read(&forward.output), layer.running_stats().unwrap())
            };
            let (expected, expected_running) = step(&clean);
            let inner: usize = dims[2..].iter().product();
            let last = clean[0].values.len() - 1;
            // Channel 1: its first value, its last one, and both signs of infinity, which must not
            // cancel out.
            let poisons: [&[(usize, f32)]; 4] = [
                &[(inner, f32::NAN)],
                &[(last - inner, f32::INFINITY)],
                &[(inner, f32::NEG_INFINITY)],
                &[(inner, f32::INFINITY), (last - inner, f32::NEG_INFINITY)],
            ];
            for (rank, poison) in poisons.iter().enumerate().map(|(i, poison)| (i % 3, poison)) {
                let mut batches = clean.clone();
                for &(index, value) in *poison {
                    assert_eq!(batches[rank].channel(index), 1);
                    batches[rank].values[index] = value;
                }
                let (y, running) = step(&batches);
                for (rank, (y, expected)) in y.iter().zip(&expected).enumerate() {
                    for (index, (y, expected)) in y.iter().zip(expected).enumerate() {
                        let right = match batches[rank].channel(index) {
                            1 => y.is_nan(),
                            _ => y.to_bits() == expected.to_bits(),
                        };
                        assert!(
                            right,
                            "{kind:?} {dims:?} {poison:?}: rank {rank}, value {index} is {y}, not \
                            {expected}"
                        );
                    }
                }
                assert!(running.mean[1].is_nan() && running.var[1].is_nan());
                for channel in [0, 2] {
                    assert_eq!(
                        running.mean[channel].to_bits(),
                        expected_running.mean[channel].to_bits()
                    );
                    assert_eq!(
                        running.var[channel].to_bits(),
                        expected_running.var[channel].to_bits()
                    );
                }
                assert_eq!(running.num_batches_tracked, 1);
            }
        }
    }
}

#[test]
fn a_constant_channel_gives_the_bias_exactly() {
    let constants = [10000.1f32, 1e-30, 0.0, 3e8, -10000.1, -0.1];
    let channels = constants.len();
    for kind in Kind::ALL {
        for eps in [EPS, 0.0] {
            for dims in [[3, channels, 5001], [2, channels, 1], [130, channels, 3]] {
                let config = BatchNormConfig::torch(channels).with_eps(eps);
                let mut layer = SyncBatchNorm::new(config, kind.devices(3)).unwrap();
                let parameters = Parameters::random(channels, &mut Random::new(36));
                parameters.set(&mut layer);
                let batch = Batch::new(&dims, |index| constants[index / dims[2] % channels]);
                let one = Batch::new(&[1, channels, 7], |index| constants[index / 7 % channels]);
                let batches = [one, batch.clone(), batch];
                let forward = block_on(layer.forward_train(&upload(&layer, &batches))).unwrap();
                for (batch, y) in batches.iter().zip(read(&forward.output)) {
                    for (index, y) in y.into_iter().enumerate() {
                        let channel = batch.channel(index);
                        assert!(
                            y == parameters.bias[channel],
                            "{kind:?}, eps {eps}, {}: {y}, expected {}",
                            constants[channel],
                            parameters.bias[channel]
                        );
                    }
                }
                for (channel, stats) in
                    forward.saved.statistics().unwrap().channels().iter().enumerate()
                {
                    assert_eq!(
                        (stats.mean, stats.m2),
                        (constants[channel].into(), 0.0),
                        "{kind:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_same_call_gives_the_same_bits_every_time() {
    for kind in Kind::ALL {
        let mut random = Random::new(37);
        let batches: Vec<Batch> = [[3, 5, 4099], [1, 5, 77], [0, 5, 3]]
            .iter()
            .map(|dims| Batch::random(dims, &mut random))
            .collect();
        let run = || {
            let layer = layer(kind, 3, 5);
            let inputs = upload(&layer, &batches);
            let forward = block_on(layer.forward_train(&inputs)).unwrap();
            (
                bits(&read(&forward.output)),
                forward.saved.statistics().cloned(),
                layer.running_stats(),
            )
        };
        let first = run();
        for _ in 0..3 {
            assert_eq!(run(), first, "{kind:?}");
        }
    }
}

#[test]
fn writing_into_tensors_of_the_caller_gives_the_bits_of_the_allocating_form() {
    for kind in Kind::ALL {
        let mut random = Random::new(38);
        let batches: Vec<Batch> = [[3, 5, 417], [2, 5, 33], [0, 5, 2]]
            .iter()
            .map(|dims| Batch::random(dims, &mut random))
            .collect();
        let allocating = layer(kind, 3, 5);
        let into = layer(kind, 3, 5);
        let inputs = upload(&into, &batches);
        // What lies in the outputs before must not matter.
        let mut outputs: Vec<_> = batches
            .iter()
            .zip(into.devices())
            .map(|(batch, device)| Batch::new(&batch.dims, |_| f32::NAN).upload(device))
            .collect();
        for _ in 0..2 {
            let forward = block_on(allocating.forward_train(&inputs)).unwrap();
            let saved = block_on(into.forward_train(Forward::of(&inputs).write_to(&mut outputs)))
                .unwrap()
                .saved;
            assert_eq!(bits(&read(&outputs)), bits(&read(&forward.output)), "{kind:?}");
            assert_same_statistics(&saved, &forward.saved);
            assert_eq!(into.running_stats(), allocating.running_stats());
            let evaluated = block_on(allocating.forward_eval(&inputs)).unwrap();
            block_on(into.forward_eval(Forward::of(&inputs).write_to(&mut outputs))).unwrap();
            assert_eq!(bits(&read(&outputs)), bits(&read(&evaluated.output)), "{kind:?}");
        }
    }
}

/// The statistics of every rank and of all together.
fn assert_same_statistics(found: &Saved, expected: &Saved) {
    let local = |saved: &Saved| saved.report().unwrap().local.clone();
    assert_eq!(local(found), local(expected));
    assert!(found.statistics().is_some());
    assert_eq!(found.statistics(), expected.statistics());
}

#[test]
fn recomputing_gives_the_same_bits_and_moves_no_running_statistics() {
    for kind in Kind::ALL {
        let mut random = Random::new(39);
        let mut layer = layer(kind, 2, 3);
        Parameters::random(3, &mut random).set(&mut layer);
        let inputs = upload(
            &layer,
            &[[2, 3, 2049], [3, 3, 7]].map(|dims| Batch::random(&dims, &mut random)),
        );
        let forward = block_on(layer.forward_train(&inputs)).unwrap();
        let running = layer.running_stats();
        for _ in 0..2 {
            let again = block_on(layer.forward_train(Forward::of(&inputs).untracked())).unwrap();
            assert_eq!(bits(&read(&again.output)), bits(&read(&forward.output)), "{kind:?}");
            assert_same_statistics(&again.saved, &forward.saved);
            assert_eq!(layer.running_stats(), running);
        }
    }
}
