//! Calls of other kinds that add to their targets: of other statistics than the batch's of all,
//! joint ones, and steps.

use pollster::block_on;
use syncbn::{Backward, SyncBatchNorm, joint};

use super::bits::{CHANNELS, old, problem};
use super::common::*;
use super::layer::{AFFINE, Call, Layer, Place, assert_same, sums};
use super::problem::Problem;

#[test]
fn a_call_that_did_not_communicate_adds_each_rank_s_own() {
    for place in Place::ALL {
        // Running statistics, and each rank's own.
        for tracks in [true, false] {
            for (seed, affine) in (120..).zip(AFFINE) {
                let mut problem = problem(4, affine, seed);
                problem.config = problem.config.with_track_running_stats(tracks);
                let layer = Layer::new(&problem, place);
                let mut call = Call::new(&layer, &problem);
                call.saved = layer.eval(&call.x);
                let before = [121, 122].map(|seed| old(4, seed));
                let gradients = call.gradients(&layer);
                let mut targets = before.each_ref().map(|values| layer.vectors(values));
                call.accumulate(&layer, &mut targets);
                for ((found, before), gradients) in targets.iter().zip(&before).zip(&gradients) {
                    let what = format!("{place:?}, tracks {tracks}, {affine:?}");
                    assert!(
                        gradients[0] != gradients[1] && gradients[2] == [0.0; CHANNELS],
                        "{what}"
                    );
                    assert_same(&what, &read(found), &sums(before, gradients));
                }
            }
        }
    }
}

#[test]
fn one_layer_of_a_joint_call_may_add_and_the_other_replace() {
    for kind in Kind::ALL {
        for (seed, affine) in (130..).zip(AFFINE) {
            let problems = [problem(2, affine, seed), problem(2, affine, seed + 10)];
            let layers = problems.each_ref().map(|problem| problem.layer(kind));
            let [x, g] = [Problem::inputs, Problem::upstream]
                .map(|upload| [upload(&problems[0], &layers[0]), upload(&problems[1], &layers[1])]);
            let saved = [0, 1].map(|at| block_on(layers[at].forward_train(&x[at])).unwrap().saved);
            let before = [131, 132, 133, 134].map(|seed| old(2, seed));
            let [mut dw, mut db, mut other_dw, mut other_db] =
                before.each_ref().map(|values| vectors(&layers[0], values));
            let adds = Backward::of(&x[0], &g[0])
                .weight_gradient(&mut dw)
                .bias_gradient(&mut db)
                .accumulate();
            let replaces = Backward::of(&x[1], &g[1])
                .weight_gradient(&mut other_dw)
                .bias_gradient(&mut other_db);
            let calls = [(&layers[0], &saved[0], adds), (&layers[1], &saved[1], replaces)];
            block_on(joint::backward(calls)).unwrap();
            let [alone, other] = [0, 1].map(|at| {
                let alone = block_on(layers[at].backward(&saved[at], Backward::of(&x[at], &g[at])))
                    .unwrap();
                [alone.weight, alone.bias].map(|tensors| read(&tensors.unwrap()))
            });
            let what = format!("{kind:?}, {affine:?}");
            assert_same(&what, &read(&dw), &sums(&before[0], &alone[0]));
            assert_same(&what, &read(&db), &sums(&before[1], &alone[1]));
            assert_eq!(
                [bits(&read(&other_dw)), bits(&read(&other_db))],
                other.map(|values| bits(&values)),
                "{what}"
            );
        }
    }
}

fn vectors(layer: &SyncBatchNorm, values: &[Vec<f32>]) -> Vec<syncbn::Tensor> {
    let pairs = values.iter().zip(layer.devices());
    pairs.map(|(values, device)| device.upload(&[values.len()], values).unwrap()).collect()
}

#[test]
fn a_step_adds_to_the_targets_that_it_is_given_and_gives_the_same_sums() {
    for kind in Kind::ALL {
        for (seed, affine) in (140..).zip(AFFINE) {
            let problem = problem(4, affine, seed);
            let layer = problem.layer(kind);
            let x = problem.inputs(&layer);
            let g = problem.upstream(&layer);
            let saved = block_on(layer.forward_train(&x)).unwrap().saved;
            let whole =
                block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap().report.unwrap();
            let written =
                block_on(layer.local_gradient_sums(&saved, Backward::of(&x, &g))).unwrap();
            assert_eq!(written, whole.local, "{kind:?}, {affine:?}");
            let before = [141, 142].map(|seed| old(4, seed));
            let own = problem_of_local(&problem).found(kind);
            let gradients = [own.grad_weights.unwrap(), own.grad_biases.unwrap()];
            for wanted in [[true, true], [true, false], [false, true], [false, false]] {
                let [mut dw, mut db] = before.each_ref().map(|values| vectors(&layer, values));
                let request = Backward::of(&x, &g).weight_gradient(wanted[0].then_some(&mut dw));
                let request = request.bias_gradient(wanted[1].then_some(&mut db)).accumulate();
                assert_eq!(
                    block_on(layer.local_gradient_sums(&saved, request)).unwrap(),
                    whole.local
                );
                for (at, found) in [dw, db].iter().enumerate() {
                    let expected = if wanted[at] {
                        sums(&before[at], &gradients[at])
                    } else {
                        before[at].clone()
                    };
                    assert_same(
                        &format!("{kind:?}, {affine:?}, {wanted:?}"),
                        &read(found),
                        &expected,
                    );
                }
            }
        }
    }
}

/// The same layer with gradients of each rank's own.
fn problem_of_local(problem: &Problem) -> Problem {
    Problem { config: problem.config.clone().with_affine_gradient(AFFINE[0]), ..problem.clone() }
}
