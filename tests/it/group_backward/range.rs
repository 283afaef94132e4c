//! Gradients over all of the range of f32: of x, and of grad_output.

use super::common::*;
use super::compare::compare_gradients;
use super::problem::{Problem, Uses};

/// Several tiles of a channel, values by fours and one by one.
const SHAPES: [[&[usize]; 2]; 3] =
    [[&[3, 4, 80, 80], &[2, 4, 2, 2]], [&[4, 3, 5, 7], &[1, 3, 5, 7]], [&[70, 5], &[3, 5]]];

/// Scales of x and of grad_output. Squares of x vanish or overflow in f32; sums of g and of
/// g·(x − mean) overflow, and the gradient of x, of g/σ, is kept a normal number.
const SCALES: [(f32, f32); 9] = [
    (1e-36, 1.0),
    (1e-30, 1.0),
    (1e-24, 1e-6),
    (1e19, 1.0),
    (1e24, 1.0),
    (1e30, 1e5),
    (1e35, 1e6),
    (1.0, 1e30),
    (1e4, 1e33),
];

#[test]
fn gradients_are_exact_at_every_scale() {
    for (seed, dims) in (300..).zip(SHAPES) {
        for (of_x, of_g) in SCALES {
            let plain = Problem::random(&dims, seed);
            let scaled = |batches: &[Batch], by: f32| -> Vec<Batch> {
                // Some devices take a subnormal for 0.
                let normal_or_0 = |value: f32| if value.is_subnormal() { 0.0 } else { value };
                let scaled = |batch: &Batch| {
                    Batch::new(&batch.dims, |index| normal_or_0(batch.values[index] * by))
                };
                batches.iter().map(scaled).collect()
            };
            let eps = if of_x < 1.0 { 0.0 } else { plain.config.eps };
            let problem = Problem {
                batches: scaled(&plain.batches, of_x),
                // Within f32: they reach 1.25.
                grad_outputs: scaled(&plain.grad_outputs, of_g),
                config: plain.config.clone().with_eps(eps),
                ..plain
            };
            let expected = problem.definition(Uses::Group);
            for kind in Kind::tested() {
                let what = format!("x by {of_x:e}, grad_output by {of_g:e}, {dims:?}, {kind:?}");
                match compare_gradients(&problem, Uses::Group, &problem.found(kind), &expected) {
                    Ok(share) => println!("{what}: {share:.2} of the tolerance"),
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
    }
}
