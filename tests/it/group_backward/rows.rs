//! The rows of "what happens when" that concern backward, on every kind of group.

use pollster::block_on;
use syncbn::stats::GradientSums;
use syncbn::{Backward, BatchNormConfig, SyncBatchNorm};

use super::common::*;
use super::problem::{Found, Problem, Uses};
use super::{check, compare_gradients};

#[test]
fn ranks_of_different_batch_and_spatial_size_are_weighted_by_their_values() {
    for kind in Kind::ALL {
        let mut random = Random::new(30);
        let dims: [&[usize]; 4] = [&[1, 3, 2, 2], &[6, 3, 5, 9], &[2, 3], &[3, 3, 1001]];
        let batches = (0..4)
            .map(|rank| Batch::new(dims[rank], |_| (10.0 * rank as f64 + random.next()) as f32));
        let problem = Problem::with_batches(batches.collect(), &mut Random::new(31));
        check(kind, &problem).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

#[test]
fn an_empty_rank_has_empty_and_zero_gradients_and_changes_nothing() {
    for kind in Kind::ALL {
        let full = Problem::random(&[&[3, 4, 5], &[2, 4, 5]], 32);
        let devices = kind.devices(2);
        let run = |problem: &Problem, devices: Vec<syncbn::Device>| {
            let mut layer = SyncBatchNorm::new(problem.config.clone(), devices).unwrap();
            problem.parameters.set(&mut layer);
            let x = problem.inputs(&layer);
            let g = problem.upstream(&layer);
            let saved = block_on(layer.forward_train(&x)).unwrap().saved;
            block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap()
        };
        let expected = Found::read(&run(&full, devices.clone()));
        // No sample, and no position, each at every place among the ranks.
        for empty in [[0, 4, 5], [3, 4, 0]] {
            for place in 0..3 {
                let mut with = full.clone();
                let mut devices = devices.clone();
                with.batches.insert(place, Batch::new(&empty, |_| 0.0));
                with.grad_outputs.insert(place, Batch::new(&empty, |_| 0.0));
                devices.insert(place, kind.devices(1).remove(0));
                let backward = run(&with, devices);
                assert_eq!(backward.input[place].dims(), empty);
                assert_eq!(
                    backward.report.as_ref().unwrap().local.ranks()[place],
                    [GradientSums::EMPTY; 4]
                );
                let mut found = Found::read(&backward);
                assert!(found.grad_inputs.remove(place).is_empty());
                assert_eq!(found.grad_weights.as_mut().unwrap().remove(place), [0.0; 4]);
                assert_eq!(found.grad_biases.as_mut().unwrap().remove(place), [0.0; 4]);
                assert_eq!(found.bits(), expected.bits(), "{kind:?}, {empty:?} at place {place}");
            }
        }
    }
}

#[test]
fn a_group_without_any_value_has_zero_gradients_and_makes_no_nan() {
    for kind in Kind::ALL {
        for eps in [1e-5, 0.0] {
            let mut problem = Problem::random(&[&[0, 2, 4], &[3, 2, 0], &[0, 2]], 33);
            problem.config = problem.config.with_eps(eps);
            let (_, backward) = problem.train(kind).unwrap();
            let global = backward.report.as_ref().unwrap().global.as_ref();
            assert_eq!(global.unwrap().channels(), [GradientSums::EMPTY; 2]);
            let found = Found::read(&backward);
            assert!(found.grad_inputs.iter().all(Vec::is_empty), "{kind:?}");
            assert_eq!(found.grad_weights.unwrap(), [[0.0; 2]; 3], "{kind:?}");
            assert_eq!(found.grad_biases.unwrap(), [[0.0; 2]; 3], "{kind:?}");
        }
    }
}

#[test]
fn one_value_per_rank_is_normal_where_the_group_has_two() {
    // x̂ = ±1 whatever the values are, as long as eps is 0: the gradient of the input is exactly 0.
    for kind in Kind::ALL {
        let mut problem = Problem::random(&[&[1, 1], &[1, 1, 1, 1]], 34);
        problem.config = problem.config.with_eps(0.0);
        problem.batches[0].values = vec![3.0];
        problem.batches[1].values = vec![7.0];
        problem.grad_outputs[0].values = vec![0.5];
        problem.grad_outputs[1].values = vec![2.0];
        let found = problem.found(kind);
        assert_eq!(found.grad_inputs, [[0.0], [0.0]], "{kind:?}");
        assert_eq!(found.grad_weights.unwrap(), [[-0.5], [2.0]], "{kind:?}");
        assert_eq!(found.grad_biases.unwrap(), [[0.5], [2.0]], "{kind:?}");
    }
}

#[test]
fn a_group_of_one_has_the_gradients_of_local_batch_normalization() {
    for kind in [Kind::Gpu, Kind::Host] {
        let problem = Problem::random(&[&[5, 3, 11]], 35);
        check(kind, &problem).unwrap();
        // Sum and mean of one rank are its own.
        let local = problem.found(kind);
        for affine in
            [syncbn::config::AffineGradient::GroupSum, syncbn::config::AffineGradient::GroupMean]
        {
            let of = Problem {
                config: problem.config.clone().with_affine_gradient(affine),
                ..problem.clone()
            };
            assert_eq!(of.found(kind).bits(), local.bits());
        }
    }
}

/// Three ranks whose values are constant per channel: in one tile, in many, and side by side.
fn constants(inner: usize, samples: usize, eps: f64) -> Problem {
    const CONSTANTS: [f32; 6] = [10000.1, 1e-30, 0.0, 3e8, -10000.1, -0.1];
    let channels = CONSTANTS.len();
    let batch = |dims: [usize; 3]| Batch::new(&dims, |index| CONSTANTS[index / dims[2] % channels]);
    let batches = vec![
        batch([1, channels, 7]),
        batch([samples, channels, inner]),
        batch([samples, channels, inner]),
    ];
    let mut problem = Problem::with_batches(batches, &mut Random::new(36));
    problem.config = problem.config.with_eps(eps);
    problem
}

#[test]
fn a_constant_channel_without_eps_has_gradient_0_exactly() {
    for kind in Kind::ALL {
        for (inner, samples) in [(5001, 3), (1, 2), (3, 130)] {
            let problem = constants(inner, samples, 0.0);
            let found = problem.found(kind);
            assert!(
                found.grad_inputs.iter().flatten().all(|&dx| dx == 0.0),
                "{kind:?}, {inner} positions"
            );
            assert!(
                found.grad_weights.as_ref().unwrap().iter().flatten().all(|&dw| dw == 0.0),
                "{kind:?}"
            );
            compare_gradients(&problem, Uses::Group, &found, &problem.definition(Uses::Group))
                .unwrap();
        }
    }
}

#[test]
fn a_constant_channel_with_eps_has_the_gradient_of_the_definition() {
    // weight·(g − A/N)/√eps, since x̂ is 0 and moves with x − mean.
    for kind in Kind::ALL {
        for (inner, samples) in [(5001, 3), (1, 2), (3, 130)] {
            let problem = constants(inner, samples, 1e-5);
            let found = problem.found(kind);
            assert!(
                found.grad_weights.as_ref().unwrap().iter().flatten().all(|&dw| dw == 0.0),
                "{kind:?}"
            );
            compare_gradients(&problem, Uses::Group, &found, &problem.definition(Uses::Group))
                .unwrap_or_else(|error| panic!("{kind:?}, {inner} positions: {error}"));
            // An upstream gradient of one value is taken away by its own mean.
            let mut constant = problem;
            for g in &mut constant.grad_outputs {
                g.values.fill(0.75);
            }
            let grad_inputs = constant.found(kind).grad_inputs;
            assert!(
                grad_inputs.iter().flatten().all(|&dx| dx == 0.0),
                "{kind:?}, {inner} positions"
            );
        }
    }
}

#[test]
fn the_same_call_gives_the_same_bits_every_time() {
    for kind in Kind::ALL {
        let mut problem = Problem::random(&[&[3, 5, 4099], &[1, 5, 77], &[0, 5, 3]], 37);
        problem.config = BatchNormConfig::torch(5);
        let first = problem.found(kind).bits();
        for _ in 0..3 {
            assert_eq!(problem.found(kind).bits(), first, "{kind:?}");
        }
    }
}
