//! Running statistics that the caller gives with a call, against the layer's own: the same bits.

use pollster::block_on;
use syncbn::error::ArgumentError;
use syncbn::stats::RunningStats;
use syncbn::{
    Backward, BatchNorm, BatchNormConfig, Device, Forward, SyncBatchNorm, Tensor,
    config::{Momentum, RunningVariance},
};

use super::common::*;

const CHANNELS: usize = 5;
const DIMS: [usize; 3] = [3, CHANNELS, 41];

fn batch(device: &Device, seed: u64, first: f32) -> Tensor {
    let mut random = Random::new(seed);
    let mut values: Vec<f32> =
        (0..DIMS.iter().product()).map(|_| (3.0 + 2.0 * random.next()) as f32).collect();
    values[0] = first;
    device.upload(&DIMS, &values).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    block_on(tensor.to_vec()).unwrap().into_iter().map(f32::to_bits).collect()
}

fn of_layer(layer: &BatchNorm) -> [Vec<u32>; 2] {
    let RunningStats { mean, var, .. } = block_on(layer.running_stats()).unwrap().unwrap();
    [mean, var].map(|values| values.into_iter().map(f32::to_bits).collect())
}

#[test]
fn vectors_of_the_caller_follow_as_the_layer_s_own_do() {
    let device = &virtual_gpus()[0];
    let momenta = [0.0, 0.3, 1.0].map(Momentum::NewWeight);
    for (momentum, variance) in momenta
        .into_iter()
        .chain([Momentum::Decay(0.9)])
        .zip([RunningVariance::Biased, RunningVariance::Unbiased].into_iter().cycle())
    {
        let config = BatchNormConfig::torch(CHANNELS)
            .with_momentum(momentum)
            .with_running_variance(variance);
        let own = BatchNorm::new(config.clone(), device).unwrap();
        let given = BatchNorm::new(config.with_track_running_stats(false), device).unwrap();
        let mut now =
            [0.0, 1.0].map(|value| device.upload(&[CHANNELS], &[value; CHANNELS]).unwrap());
        // The third has a channel that is not finite.
        for (seed, first) in [(0, 1.0), (1, 2.0), (2, f32::NAN), (3, 1.0)] {
            let x = batch(device, seed, first);
            let expected = own.forward_train(&x).unwrap();
            let mut next = [0, 1].map(|_| device.zeros(&[CHANNELS]).unwrap());
            let before = now.each_ref().map(bits);
            let [mean, var] = &now;
            let [next_mean, next_var] = &mut next;
            let request = Forward::of(&x).running_stats(mean, var);
            let found =
                given.forward_train(request.write_running_stats_to(next_mean, next_var)).unwrap();
            assert_eq!(bits(&found.output), bits(&expected.output));
            assert_eq!(next.each_ref().map(bits), of_layer(&own), "{momentum:?}, {seed}");
            assert_eq!(now.each_ref().map(bits), before, "what was given is only read");
            assert!(found.saved.mean_and_inv_std(0).is_none());
            let gradients = |layer: &BatchNorm, saved| {
                let made = layer.backward(saved, Backward::of(&x, &expected.output)).unwrap();
                [bits(&made.input), bits(&made.weight.unwrap()), bits(&made.bias.unwrap())]
            };
            assert_eq!(gradients(&given, &found.saved), gradients(&own, &expected.saved));
            now = next;
            let expected = own.forward_eval(&x).unwrap();
            let found = own.forward_eval(Forward::of(&x).running_stats(&now[0], &now[1])).unwrap();
            assert_eq!(bits(&found.output), bits(&expected.output));
            let found =
                given.forward_eval(Forward::of(&x).running_stats(&now[0], &now[1])).unwrap();
            assert_eq!(bits(&found.output), bits(&expected.output));
        }
    }
}

#[test]
fn vectors_of_a_batch_without_a_value_or_beyond_f32_stay() {
    let device = &virtual_gpus()[0];
    let layer = BatchNorm::new(BatchNormConfig::torch(1), device).unwrap();
    let now = [0.25f32, 4.0].map(|value| device.upload(&[1], &[value]).unwrap());
    let empty = device.zeros(&[0, 1]).unwrap();
    let beyond = device.upload(&[4, 1], &[3e38f32, -3e38, 3e38, -3e38]).unwrap();
    for x in [&empty, &beyond] {
        let mut next = [0, 1].map(|_| device.zeros(&[1]).unwrap());
        let [mean, var] = &mut next;
        let request = Forward::of(x).running_stats(&now[0], &now[1]);
        layer.forward_train(request.write_running_stats_to(mean, var)).unwrap();
        assert_eq!(next.each_ref().map(bits), now.each_ref().map(bits));
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_submitted() {
    let device = &virtual_gpus()[0];
    let layer = BatchNorm::new(BatchNormConfig::torch(CHANNELS), device).unwrap();
    let x = batch(device, 0, 1.0);
    let before = of_layer(&layer);
    let vector = || device.zeros(&[CHANNELS]).unwrap();
    let a = vector();
    let b = vector();
    let short = device.zeros(&[CHANNELS - 1]).unwrap();
    let refused = layer.forward_train(Forward::of(&x).running_stats(&a, &short)).unwrap_err();
    assert!(refused.to_string().contains("running variance"), "{refused}");
    let mut c = vector();
    let mut alias = a.handle().unwrap();
    let request = Forward::of(&x).running_stats(&a, &b).write_running_stats_to(&mut alias, &mut c);
    let refused = layer.forward_train(request).unwrap_err();
    assert!(refused.to_string().contains("next running mean"), "{refused}");
    let mut d = vector();
    let request = Forward::of(&x).write_running_stats_to(&mut c, &mut d);
    assert!(layer.forward_train(request).unwrap_err().to_string().contains("what they were"));
    let request = Forward::of(&x).running_stats(&a, &b).write_running_stats_to(&mut c, &mut d);
    assert!(
        layer.forward_train(request.untracked()).unwrap_err().to_string().contains("untracked")
    );
    let request = Forward::of(&x).running_stats(&a, &b).write_running_stats_to(&mut c, &mut d);
    assert!(layer.forward_eval(request).is_err());
    let cumulative = BatchNormConfig::torch(CHANNELS).with_momentum(Momentum::Cumulative);
    let cumulative = BatchNorm::new(cumulative, device).unwrap();
    let request = Forward::of(&x).running_stats(&a, &b).write_running_stats_to(&mut c, &mut d);
    let refused = cumulative.forward_train(request).unwrap_err();
    assert!(refused.to_string().contains("counter"), "{refused}");
    let on_host = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [device.clone()]).unwrap();
    let refused = block_on(on_host.forward_train(Forward::of(&x).running_stats(&a, &b)));
    let argument = "running_stats";
    assert!(matches!(
        refused.unwrap_err(),
        syncbn::Error::Argument(ArgumentError::NotWanted { argument: found, .. })
            if found == argument
    ));
    assert_eq!(of_layer(&layer), before);
}
