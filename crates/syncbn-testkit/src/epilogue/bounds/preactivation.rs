//! The input of a problem's activation by the definition, with its bounds.

use syncbn::low_level::Epilogue;
use syncbn_reference::Affine;
use syncbn_reference::bounds::{Call, Preactivation, Statistics};

use crate::compare::TOLERANCE_ULP;
use crate::epilogue::problem::{Problem, Uses};
use crate::oracle::{ranks, wide, widened};

impl Problem {
    /// The activation's input, per rank and channels first.
    pub fn preactivation(&self, uses: Uses) -> Preactivation {
        let values = wide(&self.x);
        let inputs = ranks(&self.x, &values);
        let residuals = self.residuals.as_deref().map(wide);
        let [mean, var] = [&self.running.mean, &self.running.var].map(|of| widened(of));
        let weight = self.weight().map(widened);
        let bias = self.bias().map(widened);
        let call = Call {
            inputs: &inputs,
            residuals: residuals.as_deref(),
            statistics: match uses {
                Uses::Group => Statistics::OfBatch,
                Uses::Running => Statistics::Given { mean: &mean, var: &var },
            },
            affine: Affine { weight: weight.as_deref(), bias: bias.as_deref() },
            eps: self.config.eps,
            ulps: TOLERANCE_ULP,
            rounds_again: self.epilogue() != Epilogue::NONE,
        };
        Preactivation::of(&call).expect("valid batches")
    }
}
