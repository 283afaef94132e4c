//! Which statistics normalize, which variance is kept, and whose gradients weight and bias get.

use super::*;

#[test]
fn without_running_statistics_evaluation_uses_each_rank_s_own_batch() {
    let bn = layer(TorchArguments { track_running_stats: false, ..torch() });
    assert_eq!(names(&bn, Naming::TORCH), ["bias", "weight"]);
    assert_eq!(bn.running_stats(), None);
    let mut shifted = batches();
    shifted[1].values.iter_mut().for_each(|x| *x += 5.0);
    let inputs = upload(&bn, &shifted);
    let y = read(&block_on(bn.forward_eval(&inputs)).unwrap().output);
    for (rank, batch) in shifted.iter().enumerate() {
        let one = std::slice::from_ref(batch);
        compare(one, &y[rank..=rank], &definition(one, None, 1e-5).outputs, TOLERANCE_ULP).unwrap();
    }
    // Training uses the group's.
    let y = read(&block_on(bn.forward_train(&inputs)).unwrap().output);
    compare(&shifted, &y, &definition(&shifted, None, 1e-5).outputs, TOLERANCE_ULP).unwrap();
}

#[test]
fn use_batch_statistics_has_three_states() {
    let before =
        || RunningStats { mean: vec![1.0, -2.0], var: vec![9.0, 0.25], num_batches_tracked: 3 };
    let by_batch = normalized(MEAN, VAR);
    let by_moving = normalized([1.0, -2.0], [9.0, 0.25]);
    for (setting, train_uses_batch, eval_uses_batch) in
        [(None, true, false), (Some(true), true, true), (Some(false), false, false)]
    {
        let config =
            from_mindspore(MindSporeArguments { use_batch_statistics: setting, ..mindspore() });
        for (trains, uses_batch) in [(true, train_uses_batch), (false, eval_uses_batch)] {
            let mut bn = layer(config.clone());
            bn.set_running_stats(before()).unwrap();
            let forward = if trains { train(&bn) } else { evaluate(&bn) };
            assert_normalized(&forward, if uses_batch { &by_batch } else { &by_moving });
            let running = bn.running_stats().unwrap();
            if uses_batch {
                // The moving values are updated, in evaluation too.
                assert_near(&running.mean, [0.9 + 0.1 * 10.0, -1.8 - 0.1 * 20.0]);
                assert_eq!(running.num_batches_tracked, 4);
            } else {
                assert_eq!(running, before(), "{setting:?}");
            }
        }
    }
}

#[test]
fn the_running_variance_is_unbiased_with_the_count_of_the_group_unless_asked_otherwise() {
    for config in both() {
        for (variance, divisor) in
            [(RunningVariance::Unbiased, COUNT - 1.0), (RunningVariance::Biased, COUNT)]
        {
            let bn = layer(config.clone().with_running_variance(variance));
            train(&bn);
            let expected = VAR.map(|var| 0.9 + 0.1 * var * COUNT / divisor);
            assert_near(&bn.running_stats().unwrap().var, expected);
        }
        assert_eq!(config.running_variance, RunningVariance::Unbiased);
    }
}

#[test]
fn gradients_of_weight_and_bias_are_each_rank_s_own_unless_asked_otherwise() {
    let upstream = [
        Batch::random(&[4, CHANNELS], &mut Random::new(5)),
        Batch::random(&[2, CHANNELS], &mut Random::new(6)),
    ];
    let local: Vec<[f64; 2]> = upstream
        .iter()
        .map(|g| {
            [0, 1].map(|c| g.values.iter().skip(c).step_by(CHANNELS).map(|&g| f64::from(g)).sum())
        })
        .collect();
    let sum = [0, 1].map(|c| local[0][c] + local[1][c]);
    for config in both() {
        assert_eq!(config.affine_gradient, AffineGradient::Local);
        for (affine, expected) in [
            (AffineGradient::Local, [local[0], local[1]]),
            (AffineGradient::GroupSum, [sum, sum]),
            (AffineGradient::GroupMean, [sum.map(|sum| sum / 2.0); 2]),
        ] {
            let bn = layer(config.clone().with_affine_gradient(affine));
            let inputs = upload(&bn, &batches());
            let saved = block_on(bn.forward_train(&inputs)).unwrap().saved;
            let backward =
                block_on(bn.backward(&saved, Backward::of(&inputs, &upload(&bn, &upstream))))
                    .unwrap();
            for (found, expected) in read(&backward.bias.unwrap()).iter().zip(expected) {
                assert_near(found, expected);
            }
        }
    }
}
