//! Statistics of the group, of each rank, and running ones; parameters that are missing, frozen, or
//! summed over the group; cotangents that are absent.

use syncbn::config::AffineGradient;
use syncbn::low_level::Epilogue;
use syncbn::{Layout, Tensor};

use super::common::epilogue::problem::{Problem, Uses, shape};
use super::common::storage::Types;
use super::common::*;
use super::double::Case;
use super::{LAYOUTS, check, plain};

const LAYOUT: Layout = Layout::ChannelsFirst;

#[test]
fn gradients_summed_over_the_group_are_differentiated_as_such() {
    for (of, seed) in [(AffineGradient::GroupSum, 1), (AffineGradient::GroupMean, 2)] {
        for turn in [0, 1, 4] {
            let mut case = plain(turn, Epilogue::RELU, seed);
            case.problem.config = case.problem.config.with_affine_gradient(of);
            check(&case, LAYOUT);
        }
    }
}

#[test]
fn a_layer_without_weight_or_bias_follows_the_definition() {
    for (parameters, seed) in [([false, false], 1), ([true, false], 2), ([false, true], 3)] {
        for epilogue in [Epilogue::NONE, Epilogue::ADD, Epilogue::RELU] {
            let types = &Types::all()[..1];
            let problem = Problem::random(&shape(0), types, epilogue, parameters, seed);
            check(&Case::new(problem, seed), LAYOUTS[1]);
        }
    }
}

#[test]
fn a_cotangent_that_is_not_given_is_0() {
    for given in 0..8 {
        let mut case = plain(1, Epilogue::leaky_relu(0.25), 30 + given);
        let zeros = case.clone();
        let is_given = |bit: u64| given >> bit & 1 == 1;
        case.v = case.v.filter(|_| is_given(0));
        case.u = case.u.filter(|_| is_given(1));
        case.q = case.q.filter(|_| is_given(2));
        check(&case, LAYOUT);
        // The same numbers as of zeros.
        let fill = |vectors: &Option<Vec<Vec<f32>>>, bit| {
            let zero = |values: &Vec<f32>| vec![0.0; values.len()];
            if is_given(bit) {
                vectors.clone()
            } else {
                vectors.as_ref().map(|vectors| vectors.iter().map(zero).collect())
            }
        };
        let zero = |batch: &Batch| Batch::new(&batch.dims, |_| 0.0);
        let v = zeros.v.as_ref().map(|v| v.iter().map(zero).collect());
        let filled = Case {
            v: if is_given(0) { zeros.v.clone() } else { v },
            u: fill(&zeros.u, 1),
            q: fill(&zeros.q, 2),
            problem: zeros.problem,
        };
        for kind in Kind::tested() {
            let [found, expected] =
                [&case, &filled].map(|case| case.run(kind, LAYOUT, Uses::Group));
            assert_eq!(found, expected, "{kind:?}, cotangents {given:03b}");
        }
    }
}

#[test]
fn frozen_parameters_have_no_gradient_and_no_cotangent() {
    let mut case = plain(0, Epilogue::NONE, 3);
    case.problem.config = case.problem.config.with_freeze_affine(true);
    (case.u, case.q) = (None, None);
    let unfrozen = {
        let mut case = case.clone();
        case.problem.config = case.problem.config.with_freeze_affine(false);
        case
    };
    for kind in Kind::tested() {
        let found = case.run(kind, LAYOUT, Uses::Group);
        let expected = unfrozen.run(kind, LAYOUT, Uses::Group);
        assert_eq!(found.weights, None);
        assert!(expected.weights.is_some());
        assert_eq!(found.inputs, expected.inputs);
        assert_eq!(found.grad_outputs, expected.grad_outputs);
    }
}

#[test]
fn statistics_of_each_rank_are_differentiated_by_each_rank() {
    let mut case = plain(1, Epilogue::RELU, 8);
    // A rank of one value per channel has no statistics.
    case.problem.x.pop();
    case.problem.g.pop();
    case.v.as_mut().unwrap().pop();
    case.problem.config = case.problem.config.with_track_running_stats(false);
    for kind in Kind::tested() {
        let devices = kind.devices(2);
        let mut layer =
            syncbn::SyncBatchNorm::new(case.problem.config.clone(), devices.clone()).unwrap();
        layer.set_parameters(case.problem.weight(), case.problem.bias()).unwrap();
        let all = case.found(&case.call(&layer, LAYOUT, Uses::Running).unwrap());
        for (rank, device) in devices.into_iter().enumerate() {
            let one = |batches: &Vec<Batch>| vec![batches[rank].clone()];
            let vector = |vectors: &Option<Vec<Vec<f32>>>| {
                vectors.as_ref().map(|vectors| vec![vectors[rank].clone()])
            };
            let problem = Problem {
                x: one(&case.problem.x),
                g: one(&case.problem.g),
                ..case.problem.clone()
            };
            let u = vector(&case.u);
            let q = vector(&case.q);
            let alone = Case { problem, v: case.v.as_ref().map(one), u, q };
            let mut layer =
                syncbn::SyncBatchNorm::new(case.problem.config.clone(), [device]).unwrap();
            layer.set_parameters(case.problem.weight(), case.problem.bias()).unwrap();
            let found = alone.found(&alone.call(&layer, LAYOUT, Uses::Group).unwrap());
            assert_eq!(found.inputs[0], all.inputs[rank], "{kind:?}");
            assert_eq!(found.grad_outputs[0], all.grad_outputs[rank]);
            assert_eq!(found.weights.unwrap()[0], all.weights.as_ref().unwrap()[rank]);
        }
    }
}

#[test]
fn a_group_without_values_gives_empty_gradients_and_zeros() {
    let dims = [vec![0, 3, 2], vec![4, 3, 0]];
    let case = Case::new(Problem::plain(&dims, Epilogue::RELU, 1), 1);
    for kind in Kind::tested() {
        for uses in Uses::ALL {
            let found = case.run(kind, LAYOUT, uses);
            assert_eq!(found.inputs, vec![Vec::<f32>::new(); 2]);
            assert_eq!(found.grad_outputs, vec![Vec::<f32>::new(); 2]);
            assert_eq!(found.weights.unwrap(), vec![vec![0.0; 3]; 2]);
        }
    }
}

#[test]
fn any_split_of_a_batch_gives_the_gradients_of_the_whole() {
    let whole = Case::new(Problem::plain(&[vec![12, 5, 6]], Epilogue::RELU, 4), 4);
    let cuts = [0..5, 5..5, 5..6, 6..12];
    let parts = |batch: &Batch| -> Vec<Batch> {
        let sample = 5 * 6;
        let part = |cut: &std::ops::Range<usize>| Batch {
            dims: vec![cut.len(), 5, 6],
            values: batch.values[cut.start * sample..cut.end * sample].to_vec(),
        };
        cuts.iter().map(part).collect()
    };
    let again = |vectors: &Option<Vec<Vec<f32>>>| vectors.as_ref().map(|of| vec![of[0].clone(); 4]);
    let problem = Problem {
        x: parts(&whole.problem.x[0]),
        g: parts(&whole.problem.g[0]),
        types: vec![whole.problem.types[0]; 4],
        ..whole.problem.clone()
    };
    let v = whole.v.as_ref().map(|v| parts(&v[0]));
    let split = Case { problem, v, u: again(&whole.u), q: again(&whole.q) };
    check(&whole, LAYOUT);
    check(&split, LAYOUT);
}

#[test]
fn a_value_that_is_not_finite_spoils_what_depends_on_it_and_no_other_channel() {
    for bad in [f32::NAN, f32::INFINITY] {
        for kind in Kind::tested() {
            let clean = plain(4, Epilogue::NONE, 5);
            let expected = clean.run(kind, LAYOUT, Uses::Group);
            let mut case = clean.clone();
            // Of channel 0.
            case.v.as_mut().unwrap()[1].values[2] = bad;
            let of_v = case.run(kind, LAYOUT, Uses::Group);
            let mut case = clean.clone();
            case.problem.g[0].values[3] = bad;
            let of_g = case.run(kind, LAYOUT, Uses::Group);
            for (rank, batch) in clean.problem.x.iter().enumerate() {
                for i in 0..batch.values.len() {
                    let is_hit = batch.channel(i) == 0;
                    let what = format!("{kind:?}, {bad}, value {i} of rank {rank}");
                    assert_eq!(of_v.inputs[rank][i].is_nan(), is_hit, "{what}");
                    assert_eq!(of_v.grad_outputs[rank][i].is_nan(), is_hit, "{what}");
                    assert_eq!(of_g.inputs[rank][i].is_nan(), is_hit, "{what}");
                    // It is linear in grad_output, so that it does not depend on it.
                    assert_eq!(
                        of_g.grad_outputs[rank][i], expected.grad_outputs[rank][i],
                        "{what}"
                    );
                    if !is_hit {
                        assert_eq!(of_v.inputs[rank][i], expected.inputs[rank][i], "{what}");
                        assert_eq!(of_g.inputs[rank][i], expected.inputs[rank][i], "{what}");
                    }
                }
            }
        }
    }
}

/// Of one tensor a tensor comes back.
#[test]
fn one_rank_gets_tensors_and_not_lists() {
    let device = syncbn::Device::host();
    let config = syncbn::BatchNormConfig::torch(1);
    let layer = syncbn::SyncBatchNorm::new(config, [device.clone()]).unwrap();
    let x = device.upload(&[3, 1], &[0.0f32, 1.0, 5.0]).unwrap();
    let saved = pollster::block_on(layer.forward_train(&x)).unwrap().saved;
    let request = syncbn::DoubleBackward::of(&x, &x).input_cotangent(&x);
    let second = pollster::block_on(layer.double_backward(&saved, request)).unwrap();
    let input: Tensor = second.input;
    assert_eq!(input.dims(), [3, 1]);
}
