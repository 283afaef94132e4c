//! The allowed error of gradients that follows from the error of a curve's derivative.

use super::{CURVE_ERROR, Entering, definition};
use crate::epilogue::problem::Problem;

/// How far upstream gradients behind a curve may be off: |g| times what an error of v moves in the
/// derivative, and the error of the derivative itself.
#[derive(Default)]
pub(super) struct Slack {
    /// Of every value, per rank.
    pub of: Vec<Vec<f64>>,
    /// Sums of it, and of its products with |x̂|, per rank and channel.
    pub local: Vec<Vec<[f64; 2]>>,
    /// The same, over the ranks.
    pub group: Vec<[f64; 2]>,
    /// The largest of a channel.
    pub largest: Vec<f64>,
}

impl Slack {
    pub fn of(problem: &Problem, entering: &Entering) -> Self {
        let channels = entering.mean.len();
        let mut slack = Self {
            of: problem.g.iter().map(|g| vec![0.0; g.values.len()]).collect(),
            local: vec![vec![[0.0; 2]; channels]; problem.g.len()],
            group: vec![[0.0; 2]; channels],
            largest: vec![0.0; channels],
        };
        if problem.epilogue().curve().is_none() {
            return slack;
        }
        let f = definition(problem.epilogue());
        for (rank, (x, g)) in problem.x.iter().zip(&problem.g).enumerate() {
            for (index, (&x_value, &g)) in x.values.iter().zip(&g.values).enumerate() {
                let c = x.channel(index);
                let of_derivative =
                    f.most_curved() * entering.bound[c] + CURVE_ERROR * f.steepest();
                let error = f64::from(g).abs() * of_derivative;
                let xhat = (f64::from(x_value) - entering.mean[c]) * entering.inv_std[c];
                slack.of[rank][index] = error;
                slack.largest[c] = slack.largest[c].max(error);
                for sums in [&mut slack.local[rank][c], &mut slack.group[c]] {
                    sums[0] += error;
                    sums[1] += error * xhat.abs();
                }
            }
        }
        slack
    }
}
