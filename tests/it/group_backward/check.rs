//! A training step of a problem, compared.

use super::common::*;
use super::compare::{check_report, compare_gradients};
use super::problem::{Found, Problem, Uses};

/// A training step compared with the definition, y included; the worst error of a gradient as a
/// share of its tolerance.
pub fn check(kind: Kind, problem: &Problem) -> Result<f64, String> {
    let (forward, backward) = problem.train(kind).map_err(|error| error.to_string())?;
    let y = definition(&problem.batches, Some(&problem.parameters), problem.config.eps).outputs;
    compare(&problem.batches, &read(&forward.output), &y, TOLERANCE_ULP)?;
    for (grad_input, batch) in backward.input.iter().zip(&problem.batches) {
        assert_eq!(grad_input.dims(), batch.dims);
    }
    let found = Found::read(&backward);
    check_report(problem, Uses::Group, backward.report.as_ref().unwrap(), &found)?;
    compare_gradients(problem, Uses::Group, &found, &problem.definition(Uses::Group))
}
