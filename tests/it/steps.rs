//! The passes of a layer taken step by step: the bits of the whole pass, micro-batches, exchanges
//! that are started, states that one rank has put back.

mod exchanges;
mod restored;
mod uneven;
mod values;

use crate::common;

use pollster::block_on;
use syncbn::config::{Activation, RunningVariance};
use syncbn::error::ArgumentError;
use syncbn::stats::{GlobalStatistics, Local, LocalStatistics, Moments};
use syncbn::{Backward, BatchNormConfig, Device, Error, Forward, SyncBatchNorm};

use common::*;

#[test]
fn three_steps_have_the_bits_of_the_whole_pass() {
    for kind in Kind::ALL {
        let devices = kind.devices(3);
        let mut random = Random::new(3);
        let layers =
            [0, 1].map(|_| SyncBatchNorm::new(BatchNormConfig::torch(5), devices.clone()).unwrap());
        let batches: Vec<Batch> =
            [3, 0, 4].map(|n| Batch::random(&[n, 5, 6, 7], &mut random)).into();
        let gradients: Vec<Batch> =
            [3, 0, 4].map(|n| Batch::random(&[n, 5, 6, 7], &mut random)).into();
        let x = upload(&layers[0], &batches);
        let dy = upload(&layers[0], &gradients);
        let whole = block_on(layers[0].forward_train(&x)).unwrap();
        let local = block_on(layers[1].local_statistics(&x)).unwrap();
        let global = block_on(layers[1].synchronize(local)).unwrap();
        let steps = block_on(layers[1].normalize(&x, &global)).unwrap();
        assert_eq!(bits(&read(&whole.output)), bits(&read(&steps.output)), "{kind:?}");
        assert_eq!(layers[0].running_stats(), layers[1].running_stats());
        assert_eq!(layers[0].running_stats().unwrap().num_batches_tracked, 1);
        let whole = block_on(layers[0].backward(&whole.saved, Backward::of(&x, &dy))).unwrap();
        let sums =
            block_on(layers[1].local_gradient_sums(&steps.saved, Backward::of(&x, &dy))).unwrap();
        let sums = block_on(layers[1].synchronize(sums)).unwrap();
        let steps = block_on(layers[1].input_gradients(&steps.saved, Backward::of(&x, &dy), &sums))
            .unwrap();
        assert_eq!(bits(&read(&whole.input)), bits(&read(&steps.input)), "{kind:?}");
        assert!(whole.weight.is_some() && steps.weight.is_none());
    }
}

#[test]
fn the_third_steps_fill_masks_and_targets_as_the_whole_pass_does() {
    for kind in Kind::ALL {
        let devices = kind.devices(2);
        let mut random = Random::new(5);
        let config = BatchNormConfig::torch(3)
            .with_residual(true)
            .with_activation(Activation::Relu)
            .with_activation_mask(true);
        let bn = SyncBatchNorm::new(config, devices).unwrap();
        let batch = |random: &mut Random| -> Vec<Batch> {
            [2, 5].map(|n| Batch::random(&[n, 3, 8], random)).into()
        };
        let x = upload(&bn, &batch(&mut random));
        let residual = upload(&bn, &batch(&mut random));
        let dy = upload(&bn, &batch(&mut random));
        let whole = block_on(bn.forward_train(Forward::of(&x).residual(&residual))).unwrap();
        let local = block_on(bn.local_statistics(&x)).unwrap();
        let global = block_on(bn.synchronize(local).untracked()).unwrap();
        let mut y: Vec<_> = x.iter().map(|x| x.device().zeros(x.dims()).unwrap()).collect();
        let request = Forward::of(&x).residual(&residual).write_to(&mut y);
        let saved = block_on(bn.normalize(request, &global)).unwrap().saved;
        assert_eq!(bits(&read(&whole.output)), bits(&read(&y)), "{kind:?}");
        assert_eq!(saved.mask_bytes(), whole.saved.mask_bytes());
        assert!(saved.mask_bytes() > 0 && !saved.needs_residual());
        let whole = block_on(bn.backward(&whole.saved, Backward::of(&x, &dy))).unwrap();
        // The whole backward pass of what `normalize` saved, and its steps in place.
        let other = block_on(bn.backward(&saved, Backward::of(&x, &dy))).unwrap();
        assert_eq!(bits(&read(&whole.input)), bits(&read(&other.input)));
        let sums = block_on(bn.local_gradient_sums(&saved, Backward::of(&x, &dy))).unwrap();
        let sums = block_on(bn.synchronize(sums)).unwrap();
        let mut dx = dy;
        let mut dr = x.iter().map(|x| x.device().zeros(x.dims()).unwrap()).collect::<Vec<_>>();
        let request = Backward::in_place(&x, &mut dx).residual_gradient(&mut dr);
        block_on(bn.input_gradients(&saved, request, &sums)).unwrap();
        assert_eq!(bits(&read(&whole.input)), bits(&read(&dx)), "{kind:?}");
        assert_eq!(bits(&read(&whole.residual.unwrap())), bits(&read(&dr)), "{kind:?}");
    }
}

#[test]
fn what_a_step_cannot_use_is_refused_by_its_name() {
    let host = Device::host();
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(2), [host.clone()]).unwrap();
    let x = host.upload(&[3, 2], &[0.0f32, 1.0, 2.0, 5.0, 4.0, 6.0]).unwrap();
    let forward = block_on(bn.forward_train(&x)).unwrap();
    let saved = &forward.saved;
    let argument = |error: Error| match error {
        Error::Argument(error) => error,
        other => panic!("{other}"),
    };
    let mut vector = host.zeros(&[2]).unwrap();
    let mut dx = host.zeros(&[3, 2]).unwrap();
    let sums = block_on(bn.local_gradient_sums(saved, Backward::of(&x, &x))).unwrap();
    let sums = block_on(bn.synchronize(sums)).unwrap();

    let request = Backward::of(&x, &x).input_gradient(&mut dx);
    let error = argument(block_on(bn.local_gradient_sums(saved, request)).unwrap_err());
    assert!(
        matches!(error, ArgumentError::NotWanted { argument: "input_gradient", .. }),
        "{error}"
    );
    let request = Backward::of(&x, &x).weight_gradient(&mut vector);
    let error = argument(block_on(bn.input_gradients(saved, request, &sums)).unwrap_err());
    assert!(
        matches!(error, ArgumentError::NotWanted { argument: "weight_gradient", .. }),
        "{error}"
    );

    let global = GlobalStatistics::new([Moments { count: 2, mean: 0.0, m2: 1.0 }]);
    let error = argument(block_on(bn.normalize(&x, &global)).unwrap_err());
    assert_eq!(error, ArgumentError::Length { argument: "global", found: 1, expected: 2 });
    let error = argument(block_on(bn.synchronize(LocalStatistics::empty(3))).unwrap_err());
    assert_eq!(error, ArgumentError::Length { argument: "local", found: 3, expected: 2 });
    let mut two_ranks = block_on(bn.local_statistics(&x)).unwrap();
    two_ranks.append(two_ranks.clone()).unwrap();
    let error = argument(block_on(bn.synchronize(two_ranks)).unwrap_err());
    assert_eq!(error, ArgumentError::RankCount { argument: "local", found: 2, expected: 1 });

    // Nothing has moved, and the layer goes on.
    assert_eq!(bn.running_stats().unwrap().num_batches_tracked, 1);
    block_on(bn.forward_train(&x)).unwrap();
}

#[test]
fn a_call_in_which_each_rank_used_its_own_batch_has_no_steps_of_backward() {
    let host = Device::host();
    let config = BatchNormConfig::torch(1).with_track_running_stats(false);
    let bn = SyncBatchNorm::new(config, [host.clone(), host.clone()]).unwrap();
    let x = [[1.0f32, 2.0], [3.0, 5.0]].map(|values| host.upload(&[2, 1], &values).unwrap());
    let saved = block_on(bn.forward_eval(&x)).unwrap().saved;
    assert!(saved.statistics().is_none());
    let error = block_on(bn.local_gradient_sums(&saved, Backward::of(&x, &x))).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::NotSaved { .. })), "{error}");
    block_on(bn.backward(&saved, Backward::of(&x, &x))).unwrap();
}

#[test]
fn one_value_in_all_is_refused_by_the_exchange_and_nothing_follows() {
    let host = Device::host();
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()]).unwrap();
    let local = Local::of_rank([Moments { count: 1, mean: 3.0, m2: 0.0 }]);
    assert!(matches!(block_on(bn.synchronize(local)).unwrap_err(), Error::Batch(_)));
    assert_eq!(bn.running_stats().unwrap().num_batches_tracked, 0);
}

#[test]
fn what_is_loaded_again_is_differentiated_at_the_callers_word() {
    for device in devices() {
        let bn = SyncBatchNorm::new(BatchNormConfig::torch(2), [device.clone()]).unwrap();
        let load = || device.upload(&[3, 2], &[0.0f32, 1.0, 2.0, 5.0, 4.0, 6.0]).unwrap();
        let dy = device.upload(&[3, 2], &[0.5f32, -1.0, 2.0, 0.25, 1.0, 3.0]).unwrap();
        let x = load();
        let saved = block_on(bn.forward_train(&x)).unwrap().saved;
        let expected = block_on(bn.backward(&saved, Backward::of(&x, &dy))).unwrap();
        drop(x);
        let again = load();
        let error = block_on(bn.backward(&saved, Backward::of(&again, &dy))).unwrap_err();
        assert!(matches!(error, Error::Argument(ArgumentError::NotSaved { .. })), "{error}");
        let found = block_on(bn.backward(&saved, Backward::of(&again, &dy).recomputed())).unwrap();
        assert_eq!(bits(&read(&[expected.input])), bits(&read(&[found.input])), "{device}");
        assert_eq!(bits(&read(&[expected.weight.unwrap()])), bits(&read(&[found.weight.unwrap()])));
        // Another form is not the same values.
        let other = device.upload(&[6, 1, 2], &[0.0f32; 12]).unwrap();
        assert!(block_on(bn.backward(&saved, Backward::of(&other, &dy).recomputed())).is_err());
        let other = device.zeros(&[3, 2, 1]).unwrap();
        let error =
            block_on(bn.backward(&saved, Backward::of(&other, &other).recomputed())).unwrap_err();
        assert!(
            error.to_string().contains("it has other dimensions, or another layout or type"),
            "{error}"
        );
    }
}

#[test]
fn what_a_layer_saved_alone_is_not_differentiated_in_a_group() {
    let host = Device::host();
    let group = process_groups(2, std::time::Duration::from_secs(1)).remove(0);
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone()]).unwrap();
    let x = host.upload(&[2, 1], &[0.0f32, 2.0]).unwrap();
    let saved = block_on(bn.forward_train(&x)).unwrap().saved;
    let bn = bn.in_group(&group).unwrap();
    let error = block_on(bn.backward(&saved, Backward::of(&x, &x))).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the layer has been moved to another group since; run forward again"),
        "{error}"
    );
}

#[test]
fn running_statistics_that_no_batch_gives_are_refused() {
    let mut bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [Device::host()]).unwrap();
    let before = bn.running_stats().unwrap();
    let mut running = before.clone();
    running.var[0] = -1.0;
    assert!(matches!(
        bn.set_running_stats(running),
        Err(Error::Argument(ArgumentError::Statistics { .. }))
    ));
    assert_eq!(bn.running_stats().unwrap(), before);
    // A counter at its end stays there.
    bn.set_running_stats(syncbn::stats::RunningStats { num_batches_tracked: u64::MAX, ..before })
        .unwrap();
    block_on(bn.forward_train(&Device::host().upload(&[2, 1], &[0.0f32, 2.0]).unwrap())).unwrap();
    assert_eq!(bn.running_stats().unwrap().num_batches_tracked, u64::MAX);
}
