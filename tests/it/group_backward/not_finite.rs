//! NaN and infinity in an input or in an upstream gradient: how far they reach, and what they leave
//! alone.

use pollster::block_on;
use syncbn::{Backward, config::AffineGradient};

use super::common::*;
use super::problem::{Found, Problem};

const CHANNELS: usize = 3;
/// The channel that is not finite.
const POISONED: usize = 1;

/// Several tiles with several channels per workgroup, one tile per channel, and one tile per
/// workgroup.
const SHAPES: [&[usize]; 3] = [&[2, CHANNELS, 5001], &[5, CHANNELS], &[700, CHANNELS, 2]];

/// Places in the poisoned channel and what is put there: its first value, its last one, and both
/// signs of infinity, which must not cancel out.
fn poisons(dims: &[usize]) -> [Vec<(usize, f32)>; 4] {
    let inner: usize = dims[2..].iter().product();
    let end = dims.iter().product::<usize>() - 1 - inner;
    [
        vec![(inner, f32::NAN)],
        vec![(end, f32::INFINITY)],
        vec![(inner, f32::NEG_INFINITY)],
        vec![(inner, f32::INFINITY), (end, f32::NEG_INFINITY)],
    ]
}

fn poison(batch: &mut Batch, values: &[(usize, f32)]) {
    for &(index, value) in values {
        assert_eq!(batch.channel(index), POISONED);
        batch.values[index] = value;
    }
}

/// Every value of the poisoned channel is as `right` says, every other has the bits of the clean
/// run.
fn assert_reaches(
    what: &str,
    found: &[f32],
    clean: &[f32],
    channel: impl Fn(usize) -> usize,
    right: impl Fn(f32, f32) -> bool,
) {
    for (index, (&found, &clean)) in found.iter().zip(clean).enumerate() {
        let expected = match channel(index) {
            POISONED => right(found, clean),
            _ => found.to_bits() == clean.to_bits(),
        };
        assert!(
            expected,
            "{what}, value {index} (channel {}): {found}, clean {clean}",
            channel(index)
        );
    }
}

fn is_nan(found: f32, _: f32) -> bool {
    found.is_nan()
}

fn same(found: f32, clean: f32) -> bool {
    found.to_bits() == clean.to_bits()
}

/// Clean and poisoned problems of every kind, shape and poison, with the rank that holds it; an
/// empty rank is last.
fn each_poison(
    seed: u64,
    of: fn(&mut Problem) -> &mut Vec<Batch>,
    check: impl Fn(&str, &Problem, &Problem, Kind, usize),
) {
    for dims in SHAPES {
        for kind in Kind::tested() {
            let empty: &[usize] = &[0, CHANNELS, 2];
            let clean = Problem::random(&[dims, dims, empty], seed);
            for (rank, values) in
                poisons(dims).iter().enumerate().map(|(i, values)| (i % 2, values))
            {
                let mut poisoned = clean.clone();
                poison(&mut of(&mut poisoned)[rank], values);
                check(
                    &format!("{kind:?} {dims:?} {values:?} on rank {rank}"),
                    &clean,
                    &poisoned,
                    kind,
                    rank,
                );
            }
        }
    }
}

#[test]
fn an_input_that_is_not_finite_makes_its_channel_s_gradient_nan_on_every_rank_and_spares_the_rest()
{
    each_poison(
        80,
        |problem| &mut problem.batches,
        |what, clean, poisoned, kind, _| {
            let clean = clean.found(kind);
            let found = poisoned.found(kind);
            for rank in 0..2 {
                let channel = |index| poisoned.batches[rank].channel(index);
                let what = format!("{what}: grad_inputs[{rank}]");
                assert_reaches(
                    &what,
                    &found.grad_inputs[rank],
                    &clean.grad_inputs[rank],
                    channel,
                    is_nan,
                );
            }
            let [weights, clean_weights] =
                [&found, &clean].map(|found| found.grad_weights.as_ref().unwrap());
            for rank in 0..2 {
                let what = format!("{what}: grad_weights[{rank}]");
                assert_reaches(&what, &weights[rank], &clean_weights[rank], |c| c, is_nan);
            }
            // A sum of nothing is 0, and the sum of the upstream gradient does not know x.
            assert_eq!(weights[2], [0.0; CHANNELS], "{what}");
            let [biases, clean_biases] =
                [&found, &clean].map(|found| bits(found.grad_biases.as_ref().unwrap()));
            assert_eq!(biases, clean_biases, "{what}");
            assert!(found.grad_biases.iter().flatten().flatten().all(|db| db.is_finite()));
        },
    );
}

#[test]
fn an_upstream_gradient_that_is_not_finite_makes_its_channel_s_gradient_nan_on_every_rank() {
    each_poison(
        81,
        |problem| &mut problem.grad_outputs,
        |what, clean, poisoned, kind, holder| {
            let clean = clean.found(kind);
            let found = poisoned.found(kind);
            for rank in 0..2 {
                let channel = |index| poisoned.batches[rank].channel(index);
                let what = format!("{what}: grad_inputs[{rank}]");
                assert_reaches(
                    &what,
                    &found.grad_inputs[rank],
                    &clean.grad_inputs[rank],
                    channel,
                    is_nan,
                );
            }
            // The gradients of weight and bias are the rank's own: only the holder's are not
            // finite.
            let pairs = [
                (&found.grad_weights, &clean.grad_weights),
                (&found.grad_biases, &clean.grad_biases),
            ];
            for (name, (found, clean)) in ["grad_weights", "grad_biases"].into_iter().zip(pairs) {
                let found = found.as_ref().unwrap();
                let clean = clean.as_ref().unwrap();
                for rank in 0..3 {
                    let right = |found: f32, clean: f32| {
                        if rank == holder { !found.is_finite() } else { same(found, clean) }
                    };
                    assert_reaches(
                        &format!("{what}: {name}[{rank}]"),
                        &found[rank],
                        &clean[rank],
                        |c| c,
                        right,
                    );
                }
            }
        },
    );
}

#[test]
fn the_group_s_affine_gradient_is_nan_on_every_rank_where_one_rank_s_is() {
    for kind in Kind::tested() {
        for affine in [AffineGradient::GroupSum, AffineGradient::GroupMean] {
            let mut clean =
                Problem::random(&[&[4, CHANNELS, 3], &[2, CHANNELS], &[0, CHANNELS]], 82);
            clean.config = clean.config.with_affine_gradient(affine);
            let mut poisoned = clean.clone();
            poison(&mut poisoned.grad_outputs[1], &[(POISONED, f32::NAN)]);
            let clean = clean.found(kind);
            let found = poisoned.found(kind);
            let pairs = [
                (&found.grad_weights, &clean.grad_weights),
                (&found.grad_biases, &clean.grad_biases),
            ];
            for (found, clean) in pairs {
                for rank in 0..3 {
                    let what = format!("{kind:?}, {affine:?}, rank {rank}");
                    let found = &found.as_ref().unwrap()[rank];
                    let clean = &clean.as_ref().unwrap()[rank];
                    assert_reaches(&what, found, clean, |c| c, is_nan);
                }
            }
        }
    }
}

#[test]
fn with_running_statistics_what_is_not_finite_keeps_to_its_own_value() {
    let evaluate = |problem: &Problem, kind| {
        let layer = problem.layer(kind);
        let x = problem.inputs(&layer);
        let g = problem.upstream(&layer);
        let saved = block_on(layer.forward_eval(&x)).unwrap().saved;
        Found::read(&block_on(layer.backward(&saved, Backward::of(&x, &g))).unwrap())
    };
    each_poison(
        83,
        |problem| &mut problem.batches,
        |what, clean, poisoned, kind, holder| {
            // The gradient of the input is g·weight·inv_std, whatever x is.
            let clean = evaluate(clean, kind);
            let found = evaluate(poisoned, kind);
            assert_eq!(bits(&found.grad_inputs), bits(&clean.grad_inputs), "{what}");
            assert_eq!(
                bits(found.grad_biases.as_ref().unwrap()),
                bits(clean.grad_biases.as_ref().unwrap()),
                "{what}"
            );
            let [weights, clean_weights] =
                [&found, &clean].map(|found| found.grad_weights.as_ref().unwrap());
            for rank in 0..3 {
                let right = |found: f32, clean: f32| {
                    if rank == holder { !found.is_finite() } else { same(found, clean) }
                };
                assert_reaches(
                    &format!("{what}: rank {rank}"),
                    &weights[rank],
                    &clean_weights[rank],
                    |c| c,
                    right,
                );
            }
        },
    );
    each_poison(
        84,
        |problem| &mut problem.grad_outputs,
        |what, clean, poisoned, kind, _| {
            let clean = evaluate(clean, kind);
            let found = evaluate(poisoned, kind);
            for (rank, g) in poisoned.grad_outputs.iter().enumerate() {
                for (index, (&found, &clean)) in
                    found.grad_inputs[rank].iter().zip(&clean.grad_inputs[rank]).enumerate()
                {
                    let right = if g.values[index].is_finite() {
                        same(found, clean)
                    } else {
                        !found.is_finite()
                    };
                    assert!(
                        right,
                        "{what}: grad_inputs[{rank}], value {index}: {found}, clean {clean}"
                    );
                }
            }
        },
    );
}
