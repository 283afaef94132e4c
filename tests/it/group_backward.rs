//! Backward of a device group against the f64 definition: on GPUs, on the host, and on both at
//! once.
//!
//! `syncbn_testkit::backward` makes random layers and their expected gradients (`problem`), and
//! derives the tolerances (`compare`). `modes` holds the table of modes, `accuracy` large means,
//! `rows` the rows of "what happens when", `differences` finite differences, `saved` and `targets`
//! the arguments, `rewritten` memory that is written between forward and backward, `ways` each call
//! that can, `wrong` formulas that must be caught.

mod accuracy;
mod differences;
mod modes;
mod not_finite;
mod range;
mod rewritten;
mod rows;
mod saved;
mod slices;
mod targets;
mod ways;
mod wrong;

use crate::common;
use crate::common::backward::{compare, problem};

use common::*;
use compare::{check, compare_gradients};
use problem::{Found, Problem, Uses};

/// Checks one list of shapes on every kind of group and prints the worst error.
fn check_all(dims: &[&[usize]], seed: u64) {
    let problem = Problem::random(dims, seed);
    for kind in Kind::ALL {
        match check(kind, &problem) {
            Ok(worst) => println!("{kind:?} {dims:?} seed {seed}: {worst:.3} of the tolerance"),
            Err(error) => panic!("{kind:?} {dims:?} seed {seed}: {error}"),
        }
    }
}

#[test]
fn one_position_per_sample_follows_the_definition() {
    shapes::one_position_per_sample(&check_all);
}

#[test]
fn sizes_that_no_workgroup_divides_follow_the_definition() {
    shapes::sizes_that_no_workgroup_divides(&check_all);
}

#[test]
fn tiles_side_by_side_follow_the_definition() {
    shapes::tiles_side_by_side(&check_all);
}

#[test]
fn several_tiles_per_channel_follow_the_definition() {
    shapes::several_tiles_per_channel(&check_all);
}

#[test]
fn more_channels_and_samples_than_one_dispatch_dimension_follow_the_definition() {
    shapes::more_than_one_dispatch_dimension(&check_all);
}

#[test]
fn generated_shapes_of_two_to_five_dimensions_follow_the_definition() {
    let mut worst = 0f64;
    for seed in 1000..1100 {
        let mut random = Random::new(seed);
        let channels = 1 + random.below(40);
        let spatial = random.below(4);
        let mut dims: Vec<Vec<usize>> = Vec::new();
        for rank in 0..1 + random.below(4) {
            // No seed draws a group with fewer than two values.
            let mut of_rank = vec![if rank == 0 { 2 } else { random.below(7) }, channels];
            // Each rank has spatial sizes of its own.
            of_rank.extend((0..spatial).map(|_| 1 + random.below([200, 21, 9][spatial - 1])));
            dims.push(of_rank);
        }
        let dims: Vec<&[usize]> = dims.iter().map(Vec::as_slice).collect();
        let mut problem = Problem::random(&dims, seed);
        problem.config = problem.config.with_eps([0.0, 1e-5, 1e-3, 0.5][random.below(4)]);
        for kind in Kind::ALL {
            let error = check(kind, &problem);
            worst = worst.max(
                error.unwrap_or_else(|error| panic!("seed {seed}, {kind:?} {dims:?}: {error}")),
            );
        }
    }
    println!("seeds 1000 to 1099: worst error {worst:.3} of the tolerance");
}

#[test]
fn any_split_of_a_batch_over_ranks_equals_the_whole() {
    let mut worst = 0f64;
    for seed in 2000..2200 {
        let mut random = Random::new(seed);
        let samples = 2 + random.below(40);
        let channels = 1 + random.below(20);
        let inner = 1 + random.below(60);
        let whole = Problem::random(&[&[samples, channels, inner]], seed);
        let ranks = 1 + random.below(8);
        let cuts = random.cuts(samples, ranks);
        let part =
            |batch: &Batch| cuts.windows(2).map(|cut| batch.samples(cut[0]..cut[1])).collect();
        let parts = Problem {
            batches: part(&whole.batches[0]),
            grad_outputs: part(&whole.grad_outputs[0]),
            ..whole.clone()
        };

        let kind = Kind::ALL[random.below(3)];
        let failed =
            |error: String| -> f64 { panic!("seed {seed}, {kind:?}, cuts {cuts:?}: {error}") };
        let (forward, backward) = parts.train(kind).unwrap();
        let y = definition(&whole.batches, Some(&whole.parameters), whole.config.eps).outputs;
        let joined = [read(&forward.output).concat()];
        compare(&whole.batches, &joined, &y, TOLERANCE_ULP).unwrap_or_else(failed);

        // The parts' gradients of the input one after the other, and the sums of those of weight
        // and bias.
        let found = Found::read(&backward);
        let joined = Found {
            grad_inputs: vec![found.grad_inputs.concat()],
            grad_weights: found.grad_weights.as_deref().map(summed),
            grad_biases: found.grad_biases.as_deref().map(summed),
        };
        let expected = whole.definition(Uses::Group);
        worst = worst
            .max(compare_gradients(&whole, Uses::Group, &joined, &expected).unwrap_or_else(failed));
        // And each part's own.
        worst = worst.max(
            compare_gradients(&parts, Uses::Group, &found, &parts.definition(Uses::Group))
                .unwrap_or_else(failed),
        );
    }
    println!("seeds 2000 to 2199: worst error {worst:.3} of the tolerance");
}

/// The sum over ranks, in f64 and rounded once.
fn summed(ranks: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let sum =
        |channel: usize| ranks.iter().map(|rank| f64::from(rank[channel])).sum::<f64>() as f32;
    vec![(0..ranks[0].len()).map(sum).collect()]
}
