//! A step of a case: its tensors, and what is checked of its results.

use super::{Family, Reader, mode_is_train};
use crate::compare::{Check, Quantity};
use crate::scenario::{RankTensor, Step};

impl Reader<'_> {
    pub(super) fn step(&self, k: usize, mode: &str) -> Result<Step, String> {
        let Self { store, case, .. } = self;
        let train = mode_is_train(mode).map_err(|what| store.wrong(&what))?;
        let group = |what: &str| self.of_group(k, what);
        let tensors = |what: &str| -> Result<Vec<RankTensor>, String> {
            self.ranks.iter().map(|&rank| self.tensor(k, rank, what)).collect()
        };
        let inputs = tensors("x")?;
        let grad_outputs = tensors("dy")?;
        let residuals = self.epilogue.adds_residual().then(|| tensors("z")).transpose()?;
        let padded = (case.family == Some(Family::Lengths))
            .then(|| self.padded(k, [&inputs, &grad_outputs], residuals.as_deref()))
            .transpose()?;
        // The valid positions are a step of their own. Only calls see the padding.
        let pack = |tensors: Vec<RankTensor>| match &padded {
            Some(padded) => padded
                .iter()
                .zip(&tensors)
                .map(|(rank, tensor)| rank.packed_tensor(tensor))
                .collect(),
            None => tensors,
        };
        let residuals = residuals.map(&pack);
        let inputs = pack(inputs);
        let grad_outputs = pack(grad_outputs);
        let mut checks = Vec::new();
        for (member, (rank, input)) in self.ranks.iter().zip(&inputs).enumerate() {
            let activations = [
                ("y", "tol_y", Some(Quantity::Output(member))),
                ("dx", "tol_dx", Some(Quantity::GradInput(member))),
                ("dz", "tol_dz", residuals.as_ref().map(|_| Quantity::GradResidual(member))),
            ];
            for (what, tolerance, quantity) in activations {
                let Some(quantity) = quantity else { continue };
                let name = format!("s{k}.r{rank}.{what}");
                let (dims, expected) = store.f64(&name)?;
                let of_rank = padded.as_ref().map(|padded| &padded[member]);
                let stored = of_rank.map_or(&input.dims, |rank| &rank.x.dims);
                if dims != stored {
                    return Err(store.shape_error(&name, dims, stored));
                }
                let expected = of_rank.map_or(expected.to_vec(), |rank| rank.packed(expected));
                let tolerance = store.channel_f64(&group(tolerance), case.channels)?;
                checks.push(Check::values(name, quantity, input.map(), expected, tolerance));
            }
            let dweight = format!("s{k}.r{rank}.dweight");
            let dbias = format!("s{k}.r{rank}.dbias");
            if case.affine {
                checks.push(self.vector(
                    dweight,
                    &group("tol_dweight"),
                    Quantity::GradWeight(member),
                )?);
            }
            if case.has_bias {
                checks.push(self.vector(dbias, &group("tol_dbias"), Quantity::GradBias(member))?);
            }
        }
        if case.affine {
            checks.push(self.vector(
                group("dweight_sum"),
                &group("tol_dweight"),
                Quantity::GradWeightSum,
            )?);
        }
        if case.has_bias {
            checks.push(self.vector(
                group("dbias_sum"),
                &group("tol_dbias"),
                Quantity::GradBiasSum,
            )?);
        }
        // Nothing has no statistics.
        if train && store.count(&group("count"))? > 0 {
            checks.push(self.vector(group("mean"), &group("tol_mean"), Quantity::Mean)?);
            checks.push(self.vector(
                group("var_biased"),
                &group("tol_var"),
                Quantity::VarBiased,
            )?);
            checks.push(self.inv_std(k)?);
            checks.extend(self.constant_channels(k, &inputs)?);
        }
        if case.track_running_stats && train {
            // In evaluation they must be what they were, bit for bit, which the run checks.
            let mean = group("tol_running_mean");
            let var = group("tol_running_var");
            checks.push(self.vector(group("running_mean"), &mean, Quantity::RunningMean)?);
            checks.push(self.vector(group("running_var"), &var, Quantity::RunningVar)?);
        }
        if !case.track_running_stats && !train {
            for (member, input) in inputs.iter().enumerate() {
                checks.extend(self.local_statistics(k, member, input)?);
            }
        }
        let cotangents = (case.family == Some(Family::DoubleBackward))
            .then(|| self.cotangents(k, &inputs, &mut checks))
            .transpose()?;
        let tracked = case
            .track_running_stats
            .then(|| store.count(&format!("s{k}.num_batches_tracked")))
            .transpose()?;
        Ok(Step {
            name: format!("s{k}"),
            train,
            repeats: case.repeat_same_step.max(1),
            inputs,
            residuals,
            grad_outputs: Some(grad_outputs),
            cotangents,
            count: train.then(|| store.count(&group("count"))).transpose()?,
            num_batches_tracked: tracked,
            checks,
            padded,
        })
    }
}
