//! The allowed error of gradients that follows from the error of a curve's derivative.

use syncbn_reference::bounds::Preactivation;

use super::{CURVE_ERROR, definition};
use crate::epilogue::problem::Problem;

/// How far upstream gradients behind a curve may be off: |g| times what an error of v moves in the
/// derivative, and the error of the derivative itself.
pub(super) struct Slack {
    /// Of every value, per rank.
    pub of: Vec<Vec<f64>>,
    /// The largest of a channel.
    pub largest: Vec<f64>,
}

impl Slack {
    pub fn of(problem: &Problem, preactivation: &Preactivation) -> Self {
        let mut slack = Self {
            of: problem.g.iter().map(|g| vec![0.0; g.values.len()]).collect(),
            largest: vec![0.0; preactivation.mean.len()],
        };
        if problem.epilogue().curve().is_none() {
            return slack;
        }
        let f = definition(problem.epilogue());
        for (slacks, g) in slack.of.iter_mut().zip(&problem.g) {
            for (index, (slack_of, &g_value)) in slacks.iter_mut().zip(&g.values).enumerate() {
                let c = g.channel(index);
                let of_derivative =
                    f.most_curved() * preactivation.bound[c] + CURVE_ERROR * f.steepest();
                *slack_of = f64::from(g_value).abs() * of_derivative;
                slack.largest[c] = slack.largest[c].max(*slack_of);
            }
        }
        slack
    }
}
