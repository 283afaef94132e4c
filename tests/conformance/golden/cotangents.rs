//! What double backward is given, and what is checked of its results.

use super::Reader;
use crate::compare::{Check, Quantity};
use crate::double;
use crate::scenario::RankTensor;

impl Reader<'_> {
    /// The cotangents of a step's gradients; adds the checks of what follows from them.
    pub(super) fn cotangents(
        &self,
        k: usize,
        inputs: &[RankTensor],
        checks: &mut Vec<Check>,
    ) -> Result<double::Cotangents, String> {
        let Self { store, case, .. } = self;
        let channels = case.channels;
        for (member, (rank, input)) in self.ranks.iter().zip(inputs).enumerate() {
            for (what, quantity) in [
                ("grad_x2", Quantity::DoubleInput(member)),
                ("grad_dy2", Quantity::DoubleGradOutput(member)),
            ] {
                let name = format!("s{k}.r{rank}.{what}");
                let (dims, expected) = store.f64(&name)?;
                if dims != input.dims {
                    return Err(store.shape_error(&name, dims, &input.dims));
                }
                let tolerance = self.of_group(k, &format!("tol_{what}"));
                let tolerance = store.channel_f64(&tolerance, channels)?;
                let expected = expected.to_vec();
                checks.push(Check::values(name, quantity, input.map(), expected, tolerance));
            }
            if case.affine {
                // The cut of a backward that multiplies by its own weight at its end.
                let name = format!("s{k}.r{rank}.grad_weight2_out");
                let tolerance = self.of_group(k, "tol_grad_weight2");
                checks.push(self.vector(name, &tolerance, Quantity::DoubleWeight(member))?);
            }
        }
        if case.affine {
            let sum = self.of_group(k, "grad_weight2_sum");
            let tolerance = self.of_group(k, "tol_grad_weight2");
            checks.push(self.vector(sum, &tolerance, Quantity::DoubleWeightSum)?);
        }
        let vectors = |what: &str| -> Result<Vec<Vec<f32>>, String> {
            let of_rank = |rank| store.channel_f32(&format!("s{k}.r{rank}.{what}"), channels);
            self.ranks.iter().map(of_rank).collect()
        };
        let inputs: Result<_, String> =
            self.ranks.iter().map(|&rank| self.tensor(k, rank, "v")).collect();
        Ok(double::Cotangents {
            inputs: inputs?,
            weights: case.affine.then(|| vectors("vw")).transpose()?,
            biases: case.has_bias.then(|| vectors("vb")).transpose()?,
        })
    }
}
