//! The table of modes, the three affine gradients, and layers with a part of weight and bias or
//! with both frozen.

use approx::assert_abs_diff_eq;
use pollster::block_on;
use syncbn::{Backward, BatchNormConfig, Error, config::AffineGradient, error::ArgumentError};

use super::common::*;
use super::compare::{check_report, compare_gradients};
use super::problem::{Found, Problem, Uses};

const CHANNELS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Mode {
    Train,
    Eval,
}

/// Every row of the table: mode, `use_batch_statistics`, `track_running_stats`, and what it
/// normalizes with.
const TABLE: [(Mode, Option<bool>, bool, Uses); 8] = [
    (Mode::Train, None, true, Uses::Group),
    (Mode::Train, None, false, Uses::Group),
    (Mode::Train, Some(true), true, Uses::Group),
    (Mode::Train, Some(false), true, Uses::Running),
    (Mode::Eval, None, true, Uses::Running),
    (Mode::Eval, None, false, Uses::Local),
    (Mode::Eval, Some(true), true, Uses::Group),
    (Mode::Eval, Some(false), true, Uses::Running),
];

const AFFINE: [AffineGradient; 3] =
    [AffineGradient::Local, AffineGradient::GroupSum, AffineGradient::GroupMean];

/// Three ranks that differ much, so that no statistics and no sums can stand in for others.
fn problem(config: BatchNormConfig, seed: u64) -> Problem {
    let mut random = Random::new(seed);
    let dims: [&[usize]; 3] = [&[5, CHANNELS, 7], &[3, CHANNELS, 4, 2], &[4, CHANNELS]];
    let batches = dims.iter().zip([0.0f64, 3.0, -1.0]).map(|(dims, mean)| {
        let mut value = || (mean + (1.0 + mean.abs()) * random.next()) as f32;
        Batch::new(dims, |_| value())
    });
    Problem { config, ..Problem::with_batches(batches.collect(), &mut Random::new(seed + 1)) }
}

fn run(problem: &Problem, kind: Kind, mode: Mode, uses: Uses) -> Result<Found, String> {
    let layer = problem.layer(kind);
    let x = problem.inputs(&layer);
    let g = problem.upstream(&layer);
    let forward = match mode {
        Mode::Train => block_on(layer.forward_train(&x)),
        Mode::Eval => block_on(layer.forward_eval(&x)),
    };
    let forward = forward.map_err(|error| error.to_string())?;
    let after_forward = layer.running_stats();
    let backward = block_on(layer.backward(&forward.saved, Backward::of(&x, &g)))
        .map_err(|e| e.to_string())?;
    assert_eq!(layer.running_stats(), after_forward, "backward moved the running statistics");
    let found = Found::read(&backward);
    check_report(problem, uses, backward.report.as_ref().unwrap(), &found)?;
    compare_gradients(problem, uses, &found, &problem.definition(uses))?;
    Ok(found)
}

#[test]
fn every_row_of_the_table_of_modes_has_the_gradients_of_its_statistics() {
    for kind in Kind::ALL {
        for (mode, use_batch_statistics, track_running_stats, uses) in TABLE {
            for affine_gradient in AFFINE {
                let config = BatchNormConfig::torch(CHANNELS)
                    .with_use_batch_statistics(use_batch_statistics)
                    .with_track_running_stats(track_running_stats)
                    .with_affine_gradient(affine_gradient);
                run(&problem(config.clone(), 40), kind, mode, uses)
                    .unwrap_or_else(|error| panic!("{kind:?}, {mode:?}, {config:?}: {error}"));
            }
        }
    }
}

#[test]
fn the_affine_gradient_of_the_group_is_the_same_bits_on_every_rank() {
    for kind in Kind::ALL {
        let found = |affine| {
            let config = BatchNormConfig::torch(CHANNELS).with_affine_gradient(affine);
            run(&problem(config, 41), kind, Mode::Train, Uses::Group).unwrap()
        };
        let [local, sum, mean] = AFFINE.map(found);
        // The gradient of the input does not depend on it.
        assert_eq!(bits(&local.grad_inputs), bits(&sum.grad_inputs));
        assert_eq!(bits(&local.grad_inputs), bits(&mean.grad_inputs));
        for found in [&sum, &mean] {
            for gradients in [&found.grad_weights, &found.grad_biases] {
                let gradients = gradients.as_deref().unwrap();
                assert!(
                    gradients.iter().all(|rank| rank == &gradients[0]),
                    "{kind:?}: {gradients:?}"
                );
            }
        }
        let [local, sum, mean] = [local, sum, mean].map(|found| found.grad_biases.unwrap());
        assert_ne!(local[0], local[1]);
        for channel in 0..CHANNELS {
            assert_abs_diff_eq!(sum[0][channel] / mean[0][channel], 3.0, epsilon = 1e-6);
        }
    }
}

#[test]
fn the_settings_are_told_apart_by_the_comparison() {
    // Else the table above would not show which of them was used.
    let of = |affine| Problem {
        config: BatchNormConfig::torch(CHANNELS).with_affine_gradient(affine),
        ..base()
    };
    for affine in AFFINE {
        let found = of(affine).found(Kind::Host);
        for other in AFFINE {
            let result = compare_gradients(
                &of(other),
                Uses::Group,
                &found,
                &of(other).definition(Uses::Group),
            );
            assert_eq!(result.is_ok(), affine == other, "{affine:?} as {other:?}: {result:?}");
        }
    }
    let problem = base();
    let found = problem.found(Kind::Host);
    for uses in [Uses::Local, Uses::Running] {
        compare_gradients(&problem, uses, &found, &problem.definition(uses)).unwrap_err();
    }
}

fn base() -> Problem {
    problem(BatchNormConfig::torch(CHANNELS), 42)
}

#[test]
fn a_layer_with_a_part_of_weight_and_bias_has_gradients_of_that_part() {
    for kind in Kind::ALL {
        for (weight, bias) in [(true, true), (true, false), (false, true), (false, false)] {
            for (mode, uses) in [(Mode::Train, Uses::Group), (Mode::Eval, Uses::Running)] {
                let config = BatchNormConfig::torch(CHANNELS).with_weight(weight).with_bias(bias);
                let problem = problem(config, 43);
                let found = run(&problem, kind, mode, uses)
                    .unwrap_or_else(|error| panic!("{kind:?} {weight} {bias} {mode:?}: {error}"));
                assert_eq!(
                    (found.grad_weights.is_some(), found.grad_biases.is_some()),
                    (weight, bias)
                );
            }
        }
    }
}

/// The target of a parameter's gradient, and the setting that the parameter depends on.
fn named(name: &str) -> (&'static str, &'static str) {
    match name {
        "weight" => ("weight_gradient", "with_weight"),
        _ => ("bias_gradient", "with_bias"),
    }
}

fn absent(name: &str) -> Error {
    let (argument, setting) = named(name);
    Error::Argument(ArgumentError::NoSuchParameter { argument, setting })
}

fn frozen(name: &str) -> Error {
    Error::Argument(ArgumentError::Frozen { argument: named(name).0 })
}

#[test]
fn a_target_for_what_the_layer_has_no_gradient_of_is_refused() {
    type Refusal = fn(&str) -> Error;
    let without = [
        (base().config.with_affine(false), "weight and bias absent", absent as Refusal),
        (base().config.with_freeze_affine(true), "weight and bias frozen", frozen),
    ];
    for kind in Kind::ALL {
        for (config, what, expected) in &without {
            let problem = problem(config.clone(), 44);
            let layer = problem.layer(kind);
            let x = problem.inputs(&layer);
            let g = problem.upstream(&layer);
            let saved = block_on(layer.forward_train(&x)).unwrap().saved;
            for name in ["weight", "bias"] {
                let vectors =
                    layer.devices().iter().map(|device| device.zeros(&[CHANNELS]).unwrap());
                let mut vectors: Vec<_> = vectors.collect();
                let request = Backward::of(&x, &g);
                let request = match name {
                    "weight" => request.weight_gradient(&mut vectors),
                    _ => request.bias_gradient(&mut vectors),
                };
                let error = block_on(layer.backward(&saved, request)).unwrap_err();
                assert_eq!(error, expected(name), "{kind:?}, {what}");
            }
        }
    }
}

#[test]
fn frozen_weight_and_bias_are_applied_but_have_no_gradient() {
    for kind in Kind::ALL {
        let trained = problem(BatchNormConfig::torch(CHANNELS), 45);
        let frozen =
            Problem { config: trained.config.clone().with_freeze_affine(true), ..trained.clone() };
        let found = run(&frozen, kind, Mode::Train, Uses::Group).unwrap();
        assert_eq!((&found.grad_weights, &found.grad_biases), (&None, &None));
        assert_eq!(bits(&found.grad_inputs), bits(&trained.found(kind).grad_inputs), "{kind:?}");
        let [y, expected] =
            [&frozen, &trained].map(|problem| read(&problem.train(kind).unwrap().0.output));
        assert_eq!(bits(&y), bits(&expected), "{kind:?}");
    }
}

#[test]
fn one_value_that_evaluates_with_its_own_statistics_has_no_gradient_of_its_input() {
    let config = BatchNormConfig::torch(CHANNELS).with_track_running_stats(false);
    for kind in Kind::ALL {
        let problem = Problem {
            config: config.clone(),
            ..Problem::random(&[&[1, CHANNELS], &[1, CHANNELS, 1]], 46)
        };
        let layer = problem.layer(kind);
        let x = problem.inputs(&layer);
        let g = problem.upstream(&layer);
        let saved = block_on(layer.forward_eval(&x)).unwrap().saved;
        let found = Found::read(&block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap());
        assert_eq!(found.grad_inputs, [[0.0; CHANNELS]; 2], "{kind:?}");
        assert_eq!(found.grad_weights.unwrap(), [[0.0; CHANNELS]; 2], "{kind:?}");
        for (grad_bias, grad_output) in found.grad_biases.unwrap().iter().zip(&problem.grad_outputs)
        {
            assert_eq!(grad_bias, &grad_output.values, "{kind:?}");
        }
    }
}
