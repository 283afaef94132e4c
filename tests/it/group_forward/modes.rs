//! The table of modes: which statistics normalize, whether the running ones are updated, and
//! whether ranks see each other.

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{
    BatchNormConfig, Forward, Saved, SyncBatchNorm,
    config::{Momentum, RunningVariance},
};
use syncbn_reference::{Divisor, Running};

use super::EPS;
use super::common::*;

const CHANNELS: usize = 3;

/// What a call normalizes with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Uses {
    Group,
    Local,
    Running,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Train,
    Eval,
}

struct Case {
    use_batch_statistics: Option<bool>,
    track_running_stats: bool,
    train: Uses,
    eval: Uses,
}

const TABLE: [Case; 5] = [
    Case {
        use_batch_statistics: None,
        track_running_stats: true,
        train: Uses::Group,
        eval: Uses::Running,
    },
    Case {
        use_batch_statistics: None,
        track_running_stats: false,
        train: Uses::Group,
        eval: Uses::Local,
    },
    Case {
        use_batch_statistics: Some(true),
        track_running_stats: true,
        train: Uses::Group,
        eval: Uses::Group,
    },
    Case {
        use_batch_statistics: Some(true),
        track_running_stats: false,
        train: Uses::Group,
        eval: Uses::Group,
    },
    Case {
        use_batch_statistics: Some(false),
        track_running_stats: true,
        train: Uses::Running,
        eval: Uses::Running,
    },
];

/// Two ranks that differ much, so that no statistics can stand in for others.
fn batches(random: &mut Random) -> [Batch; 2] {
    [
        Batch::new(&[5, CHANNELS, 7], |_| random.next() as f32),
        Batch::new(&[3, CHANNELS, 7], |_| (3.0 + 2.0 * random.next()) as f32),
    ]
}

fn before() -> RunningStats {
    RunningStats { mean: vec![0.5, -1.0, 2.0], var: vec![0.25, 1.5, 3.0], num_batches_tracked: 7 }
}

fn call(layer: &SyncBatchNorm, mode: Mode, batches: &[Batch]) -> (Vec<Vec<f32>>, Saved) {
    let inputs = upload(layer, batches);
    let mut outputs: Vec<_> =
        batches.iter().zip(layer.devices()).map(|(b, d)| d.zeros(&b.dims).unwrap()).collect();
    let forward = match mode {
        Mode::Train => block_on(layer.forward_train(Forward::of(&inputs).write_to(&mut outputs))),
        Mode::Eval => block_on(layer.forward_eval(Forward::of(&inputs).write_to(&mut outputs))),
    };
    (read(&outputs), forward.unwrap().saved)
}

#[test]
fn every_row_of_the_table_of_modes_normalizes_with_its_statistics() {
    for kind in Kind::ALL {
        for case in &TABLE {
            for (mode, uses) in [(Mode::Train, case.train), (Mode::Eval, case.eval)] {
                let label = format!(
                    "{kind:?}, use_batch_statistics {:?}, track_running_stats {}, {mode:?}",
                    case.use_batch_statistics, case.track_running_stats
                );
                row(kind, case, mode, uses).unwrap_or_else(|error| panic!("{label}: {error}"));
            }
        }
    }
}

fn row(kind: Kind, case: &Case, mode: Mode, uses: Uses) -> Result<(), String> {
    let mut random = Random::new(40);
    let batches = batches(&mut random);
    let config = BatchNormConfig::torch(CHANNELS)
        .with_use_batch_statistics(case.use_batch_statistics)
        .with_track_running_stats(case.track_running_stats);
    let mut layer = SyncBatchNorm::new(config, kind.devices(2)).unwrap();
    let parameters = Parameters::random(CHANNELS, &mut random);
    parameters.set(&mut layer);
    if case.track_running_stats {
        layer.set_running_stats(before()).unwrap();
    }
    let (y, saved) = call(&layer, mode, &batches);

    let whole = definition(&batches, Some(&parameters), EPS);
    let expected = match uses {
        Uses::Group => whole.outputs.clone(),
        Uses::Local => batches
            .iter()
            .map(|batch| {
                definition(std::slice::from_ref(batch), Some(&parameters), EPS).outputs.remove(0)
            })
            .collect(),
        Uses::Running => {
            let running = before();
            definition_with(
                &batches,
                Some(&parameters),
                &widened(&running.mean),
                &widened(&running.var),
                EPS,
            )
        }
    };
    compare(&batches, &y, &expected, TOLERANCE_ULP)?;
    assert_eq!(
        saved.report().unwrap().local.ranks().len(),
        if uses == Uses::Running { 0 } else { 2 }
    );
    if uses == Uses::Group {
        compare_statistics(saved.statistics().unwrap(), &whole.statistics)?;
    } else {
        // Nothing was exchanged.
        assert_eq!(saved.statistics(), None);
    }
    match layer.running_stats() {
        None => assert!(!case.track_running_stats),
        Some(running) if uses == Uses::Group => {
            let mut expected =
                Running { mean: widened(&before().mean), var: widened(&before().var) };
            expected.update(&whole.statistics, 0.1, Divisor::CountMinusOne).unwrap();
            compare_running(&running, &expected, 2.0)?;
            assert_eq!(running.num_batches_tracked, 8);
        }
        Some(running) => assert_eq!(running, before()),
    }
    Ok(())
}

#[test]
fn a_rank_that_evaluates_is_not_changed_by_its_peers() {
    // Neither row of the table that does not communicate lets a NaN through.
    for kind in Kind::ALL {
        for track in [true, false] {
            let batches = batches(&mut Random::new(41));
            let mut poisoned = batches.clone();
            poisoned[1].values.fill(f32::NAN);
            let config = BatchNormConfig::torch(CHANNELS).with_track_running_stats(track);
            let layer = SyncBatchNorm::new(config, kind.devices(2)).unwrap();
            let (clean, _) = call(&layer, Mode::Eval, &batches);
            let (y, _) = call(&layer, Mode::Eval, &poisoned);
            assert_eq!(bits(&y[..1]), bits(&clean[..1]), "{kind:?}");
            assert!(y[1].iter().all(|y| y.is_nan()), "{kind:?}");
        }
    }
}

#[test]
fn one_value_evaluates_to_the_bias_by_its_own_statistics() {
    for kind in Kind::ALL {
        let config = BatchNormConfig::torch(CHANNELS).with_track_running_stats(false);
        let mut layer = SyncBatchNorm::new(config, kind.devices(2)).unwrap();
        layer.set_parameters(None, Some(&[0.5, -2.0, 3.0])).unwrap();
        let batch = Batch::random(&[1, CHANNELS], &mut Random::new(42));
        let (y, _) = call(&layer, Mode::Eval, &[batch.clone(), batch]);
        assert_eq!(y, [[0.5, -2.0, 3.0], [0.5, -2.0, 3.0]], "{kind:?}");
    }
}

#[test]
fn running_statistics_follow_three_batches_as_their_settings_say() {
    for kind in Kind::ALL {
        for momentum in [
            Momentum::NewWeight(0.3),
            Momentum::NewWeight(0.0),
            Momentum::NewWeight(1.0),
            Momentum::Decay(0.7),
            Momentum::Cumulative,
        ] {
            for (variance, divisor) in [
                (RunningVariance::Unbiased, Divisor::CountMinusOne),
                (RunningVariance::Biased, Divisor::Count),
            ] {
                let config = BatchNormConfig::torch(CHANNELS)
                    .with_momentum(momentum)
                    .with_running_variance(variance);
                let layer = SyncBatchNorm::new(config, kind.devices(2)).unwrap();
                let mut expected = Running { mean: vec![0.0; CHANNELS], var: vec![1.0; CHANNELS] };
                let mut random = Random::new(43);
                for step in 1..=3 {
                    let batches = batches(&mut random);
                    call(&layer, Mode::Train, &batches);
                    let factor = match momentum {
                        Momentum::NewWeight(weight) => weight,
                        Momentum::Decay(decay) => 1.0 - decay,
                        Momentum::Cumulative => 1.0 / f64::from(step),
                    };
                    expected
                        .update(&definition(&batches, None, EPS).statistics, factor, divisor)
                        .unwrap();
                    let running = layer.running_stats().unwrap();
                    compare_running(&running, &expected, 2.0).unwrap_or_else(|error| {
                        panic!("{kind:?} {momentum:?} {variance:?} step {step}: {error}")
                    });
                    assert_eq!(running.num_batches_tracked, step as u64);
                }
            }
        }
    }
}

#[test]
fn the_biased_and_the_unbiased_running_variance_are_told_apart() {
    let statistics = definition(&batches(&mut Random::new(44)), None, EPS).statistics;
    let running = |divisor| {
        let mut running = Running { mean: vec![0.0; CHANNELS], var: vec![1.0; CHANNELS] };
        running.update(&statistics, 0.1, divisor).unwrap();
        running
    };
    let biased = running(Divisor::Count);
    let narrowed = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
    let found = RunningStats {
        mean: narrowed(&biased.mean),
        var: narrowed(&biased.var),
        num_batches_tracked: 1,
    };
    compare_running(&found, &biased, 2.0).unwrap();
    compare_running(&found, &running(Divisor::CountMinusOne), 2.0).unwrap_err();
}

#[test]
fn a_layer_with_one_of_weight_and_bias_uses_that_one_alone() {
    for kind in Kind::ALL {
        for (weight, bias) in [(true, false), (false, true), (false, false)] {
            let mut random = Random::new(45);
            let batches = batches(&mut random);
            let config = BatchNormConfig::torch(CHANNELS).with_weight(weight).with_bias(bias);
            let mut layer = SyncBatchNorm::new(config, kind.devices(2)).unwrap();
            let mut parameters = Parameters::random(CHANNELS, &mut random);
            layer
                .set_parameters(
                    weight.then_some(&parameters.weight),
                    bias.then_some(&parameters.bias),
                )
                .unwrap();
            let (y, _) = call(&layer, Mode::Train, &batches);
            if !weight {
                parameters.weight = vec![1.0; CHANNELS];
            }
            if !bias {
                parameters.bias = vec![0.0; CHANNELS];
            }
            let expected = definition(&batches, Some(&parameters), EPS).outputs;
            compare(&batches, &y, &expected, TOLERANCE_ULP)
                .unwrap_or_else(|e| panic!("{kind:?} {weight} {bias}: {e}"));
        }
    }
}
