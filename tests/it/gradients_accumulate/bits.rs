//! What targets hold after calls that add to them: what was there, and one f32 addition of each
//! call's gradient.

use syncbn::config::{Activation, AffineGradient};
use syncbn::{Backward, Forward, Tensor};

use super::common::*;
use super::layer::{AFFINE, Call, Layer, Place, assert_same, sums};
use super::problem::Problem;

/// No multiple of anything that kernels like.
pub const CHANNELS: usize = 37;

/// A layer of so many ranks, of which the third is empty.
pub fn problem(ranks: usize, affine: AffineGradient, seed: u64) -> Problem {
    let dims: [&[usize]; 4] =
        [&[3, CHANNELS, 5], &[2, CHANNELS, 2, 4], &[0, CHANNELS], &[1, CHANNELS, 700]];
    let problem = Problem::random(&dims[..ranks], seed);
    Problem { config: problem.config.clone().with_affine_gradient(affine), ..problem }
}

/// The same layer with other batches.
fn next(problem: &Problem, seed: u64) -> Problem {
    let other = self::problem(problem.batches.len(), problem.config.affine_gradient, seed);
    Problem { parameters: problem.parameters.clone(), ..other }
}

/// Values of very different size for every rank, beside which rounding shows.
pub fn old(ranks: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = Random::new(seed);
    let value = |channel: usize, random: &mut Random| {
        ([1e-3, 1.0, 1e4, 1e7][channel % 4] * random.next()) as f32
    };
    (0..ranks).map(|_| (0..CHANNELS).map(|channel| value(channel, &mut random)).collect()).collect()
}

/// Every kind of layer, number of ranks, and gradient of weight and bias.
fn each(check: impl Fn(&str, Place, &Problem)) {
    for place in Place::ALL {
        for ranks in [1, 2, 4] {
            for (seed, affine) in (50..).zip(AFFINE) {
                check(
                    &format!("{place:?}, {ranks} ranks, {affine:?}"),
                    place,
                    &problem(ranks, affine, seed),
                );
            }
        }
    }
}

#[test]
fn every_call_adds_its_gradients_by_one_f32_addition_each() {
    each(|what, place, problem| {
        let layer = Layer::new(problem, place);
        let ranks = problem.batches.len();
        let mut expected = [60, 61].map(|seed| old(ranks, seed));
        let mut exact = expected
            .each_ref()
            .map(|values| values.iter().flatten().map(|&v| f64::from(v)).collect());
        let mut targets = expected.each_ref().map(|values| layer.vectors(values));
        for seed in 62..66 {
            let call = Call::new(&layer, &next(problem, seed));
            let gradients = call.gradients(&layer);
            call.accumulate(&layer, &mut targets);
            for ((expected, exact), gradient) in expected.iter_mut().zip(&mut exact).zip(&gradients)
            {
                *expected = sums(expected, gradient);
                let exact: &mut Vec<f64> = exact;
                exact
                    .iter_mut()
                    .zip(gradient.iter().flatten())
                    .for_each(|(sum, &value)| *sum += f64::from(value));
            }
            for (name, (found, expected)) in
                ["weight", "bias"].into_iter().zip(targets.iter().zip(&expected))
            {
                assert_same(&format!("{what}, call {seed}, {name}"), &read(found), expected);
            }
        }
        // Else this would not show where a sum is rounded.
        for (sums, exact) in expected.iter().zip(&exact) {
            assert!(
                sums.iter().flatten().zip(exact).any(|(&sum, &exact)| sum != exact as f32),
                "{what}"
            );
        }
    });
}

#[test]
fn the_gradients_that_are_added_are_those_of_the_setting() {
    for place in Place::ALL {
        let of = |affine| {
            let problem = problem(4, affine, 70);
            let layer = Layer::new(&problem, place);
            let mut targets = [70, 71].map(|seed| layer.vectors(&old(4, seed)));
            Call::new(&layer, &problem).accumulate(&layer, &mut targets);
            targets.map(|tensors| read(&tensors))
        };
        let [local, sum, mean] = AFFINE.map(of);
        // A rank without values adds nothing of its own, and adds what all have where all get the
        // same.
        assert_eq!([&local[0][2], &local[1][2]], [&old(4, 70)[2], &old(4, 71)[2]], "{place:?}");
        for (of_local, (of_sum, of_mean)) in local.iter().zip(sum.iter().zip(&mean)) {
            for rank in 0..4 {
                assert!(
                    of_local[rank] != of_sum[rank] && of_sum[rank] != of_mean[rank],
                    "{place:?}, rank {rank}"
                );
            }
        }
    }
}

#[test]
fn without_accumulate_what_is_there_does_not_matter() {
    each(|what, place, problem| {
        let layer = Layer::new(problem, place);
        let call = Call::new(&layer, problem);
        let [mut weight, mut bias] =
            [(); 2].map(|()| layer.vectors(&vec![vec![f32::NAN; CHANNELS]; problem.batches.len()]));
        // Twice: the second finds what the first has left.
        for _ in 0..2 {
            layer.backward(
                &call.saved,
                call.request().weight_gradient(&mut weight).bias_gradient(&mut bias),
            );
        }
        let expected = call.gradients(&layer);
        assert_eq!(
            [bits(&read(&weight)), bits(&read(&bias))],
            expected.map(|values| bits(&values)),
            "{what}"
        );
    });
}

#[test]
fn one_target_may_be_left_out() {
    each(|what, place, problem| {
        let layer = Layer::new(problem, place);
        let call = Call::new(&layer, problem);
        let ranks = problem.batches.len();
        let before = [80, 81].map(|seed| old(ranks, seed));
        let gradients = call.gradients(&layer);
        for wanted in [[true, false], [false, true], [false, false]] {
            let [mut weight, mut bias] = before.each_ref().map(|values| layer.vectors(values));
            let request = call.request().weight_gradient(wanted[0].then_some(&mut weight));
            layer.backward(
                &call.saved,
                request.bias_gradient(wanted[1].then_some(&mut bias)).accumulate(),
            );
            let found = [read(&weight), read(&bias)];
            for at in 0..2 {
                let expected =
                    if wanted[at] { sums(&before[at], &gradients[at]) } else { before[at].clone() };
                assert_same(
                    &format!("{what}, wanted {wanted:?}, target {at}"),
                    &found[at],
                    &expected,
                );
            }
        }
        // Named by itself.
        let mut bias = layer.vectors(&before[1]);
        layer.backward(&call.saved, call.request().bias_gradient(&mut bias).accumulate());
        assert_same(
            &format!("{what}, the bias alone"),
            &read(&bias),
            &sums(&before[1], &gradients[1]),
        );
    });
}

/// Tensors like these, full of a value that must not matter.
fn full(layer: &Layer, tensors: &[Tensor]) -> Vec<Tensor> {
    let of_rank = |(rank, tensor): (usize, &Tensor)| {
        layer.device(rank).upload(tensor.dims(), &vec![1000.0; tensor.element_count()]).unwrap()
    };
    tensors.iter().enumerate().map(of_rank).collect()
}

#[test]
fn gradients_of_activations_are_replaced_and_not_added_to() {
    for place in Place::ALL {
        for affine in AFFINE {
            let mut problem = problem(4, affine, 90);
            problem.config = problem.config.with_residual(true).with_activation(Activation::Relu);
            let layer = Layer::new(&problem, place);
            let residuals: Vec<Batch> = problem
                .batches
                .iter()
                .map(|b| Batch::random(&b.dims, &mut Random::new(91)))
                .collect();
            let x = layer.upload(&problem.batches);
            let z = layer.upload(&residuals);
            let g = layer.upload(&problem.grad_outputs);
            let saved = layer.train(Forward::of(&x).residual(&z));
            let expected = layer.backward(&saved, Backward::of(&x, &g).residual(&z));
            let gradients = [expected.weight, expected.bias].map(|tensors| read(&tensors.unwrap()));
            let activations = [read(&expected.input), read(&expected.residual.unwrap())];
            let mut dx = full(&layer, &x);
            let mut dz = full(&layer, &x);
            let mut before = [92, 93].map(|seed| old(4, seed));
            let [mut dw, mut db] = before.each_ref().map(|values| layer.vectors(values));
            for turn in 0..3 {
                // The last time in place of the upstream gradient.
                let mut in_place = layer.upload(&problem.grad_outputs);
                let request = match turn {
                    2 => Backward::in_place(&x, &mut in_place),
                    _ => Backward::of(&x, &g).input_gradient(&mut dx),
                };
                let request = request.residual(&z).residual_gradient(&mut dz);
                layer.backward(
                    &saved,
                    request.weight_gradient(&mut dw).bias_gradient(&mut db).accumulate(),
                );
                let found = [read(if turn == 2 { &in_place } else { &dx }), read(&dz)];
                let what = format!("{place:?}, {affine:?}, call {turn}");
                assert_eq!(
                    found.map(|values| bits(&values)),
                    activations.each_ref().map(|values| bits(values)),
                    "{what}"
                );
                before = [sums(&before[0], &gradients[0]), sums(&before[1], &gradients[1])];
                assert_same(&what, &read(&dw), &before[0]);
                assert_same(&what, &read(&db), &before[1]);
            }
        }
    }
}

/// What is there: what is not finite, what leaves f32 where it is doubled, a zero of each sign.
const OLD: [f32; 7] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, 0.0, -1.5e-3];
/// Upstream gradients that it meets.
const UPSTREAM: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, 0.0, 0.25];

#[test]
fn what_is_not_finite_meets_what_is_there_as_in_any_addition() {
    for place in Place::ALL {
        for affine in AFFINE {
            let channels = OLD.len() * UPSTREAM.len();
            let mut problem = Problem::random(&[&[3, channels, 4], &[2, channels, 4]], 95);
            problem.config = problem.config.with_affine_gradient(affine);
            for g in &mut problem.grad_outputs {
                for index in 0..g.values.len() {
                    g.values[index] = UPSTREAM[g.channel(index) / OLD.len()];
                }
            }
            let layer = Layer::new(&problem, place);
            let call = Call::new(&layer, &problem);
            let gradients = call.gradients(&layer);
            let before =
                vec![
                    (0..channels).map(|channel| OLD[channel % OLD.len()]).collect::<Vec<f32>>();
                    2
                ];
            let mut targets = [(); 2].map(|()| layer.vectors(&before));
            call.accumulate(&layer, &mut targets);
            for (found, gradient) in targets.iter().zip(&gradients) {
                let is_nan = |channel: usize| gradient[0][channel].is_nan();
                assert!(
                    (0..OLD.len()).all(is_nan) && !is_nan(channels - 1),
                    "{place:?}, {affine:?}: {gradient:?}"
                );
                assert_same(
                    &format!("{place:?}, {affine:?}"),
                    &read(found),
                    &sums(&before, gradient),
                );
            }
        }
    }
}
