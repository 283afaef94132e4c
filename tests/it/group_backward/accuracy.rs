//! Gradients where the mean is large beside the deviation, where ranks are far apart, and where eps
//! is above the variance.

use super::common::*;
use super::compare::check;
use super::problem::Problem;

#[test]
fn a_mean_of_a_million_deviations_costs_nothing() {
    let shapes: [[&[usize]; 2]; 3] =
        [[&[8, 5, 11, 7], &[3, 5, 11, 7]], [&[4, 5, 9001], &[1, 5, 77]], [&[2001, 5], &[900, 5]]];
    for kind in Kind::tested() {
        for (mean, deviation) in [(1e4, 1e-2), (1e6, 1.0), (-1e6, 1.0)] {
            for (seed, dims) in shapes.iter().enumerate() {
                let mut random = Random::new(60 + seed as u64);
                let mut normal = |dims: &&[usize]| {
                    Batch::new(dims, |_| (mean + deviation * random.normal()) as f32)
                };
                let batches = dims.iter().map(&mut normal).collect();
                let problem = Problem::with_batches(batches, &mut random);
                match check(kind, &problem) {
                    Ok(worst) => println!(
                        "{kind:?}, mean {mean}, deviation {deviation}, {dims:?}: {worst:.3}"
                    ),
                    Err(error) => {
                        panic!("{kind:?}, mean {mean}, deviation {deviation}, {dims:?}: {error}")
                    }
                }
            }
        }
    }
}

#[test]
fn ranks_far_apart_and_an_eps_above_the_variance_follow_the_definition() {
    for kind in Kind::tested() {
        let mut random = Random::new(70);
        let batches = (0..3)
            .map(|rank| Batch::new(&[4, 3, 501], |_| (1e3 * rank as f64 + random.next()) as f32));
        let far = Problem::with_batches(batches.collect(), &mut Random::new(71));
        check(kind, &far).unwrap_or_else(|error| panic!("{kind:?}: {error}"));

        let batches =
            (0..3).map(|_| Batch::new(&[4, 3, 501], |_| (2.0 + 1e-5 * random.next()) as f32));
        let narrow = Problem::with_batches(batches.collect(), &mut Random::new(72));
        check(kind, &narrow).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}
