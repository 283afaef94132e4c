//! Checks whose tolerance no case stores: of local statistics, of inv_std, of constant channels.

use syncbn::DType;
use syncbn::low_level::Epilogue;

use super::Reader;
use crate::compare::{Check, Quantity, Tolerance};
use crate::conditioning;
use crate::scenario::RankTensor;

impl Reader<'_> {
    /// The statistics of a rank's own batch, for which the tolerance is derived: the cases store
    /// none.
    pub(super) fn local_statistics(
        &self,
        k: usize,
        member: usize,
        input: &RankTensor,
    ) -> Result<[Check; 2], String> {
        let prefix = format!("s{k}.r{}", self.ranks[member]);
        let mean_name = format!("{prefix}.local_mean");
        let var_name = format!("{prefix}.local_var_biased");
        let stored = |name: &str| self.store.channel_f64(name, self.case.channels);
        let mean = stored(&mean_name)?;
        let var = stored(&var_name)?;
        let facts = conditioning::channels(
            std::slice::from_ref(input),
            None,
            (&mean, &var),
            (None, None),
            0.0,
        );
        let tol_mean = facts.iter().map(conditioning::Channel::tol_mean).collect();
        let tol_var = facts.iter().map(conditioning::Channel::tol_var).collect();
        Ok([
            Check::vector(mean_name, Quantity::LocalMean(member), mean, tol_mean),
            Check::vector(var_name, Quantity::LocalVarBiased(member), var, tol_var),
        ])
    }

    /// 1/√(var + eps) has no stored tolerance. It follows from that of the variance, as f(v) falls
    /// with v: no further than f(v - tol) above and f(v + tol) below, and half an ulp of f32 for
    /// its own rounding.
    pub(super) fn inv_std(&self, k: usize) -> Result<Check, String> {
        let name = self.of_group(k, "invstd");
        let channels = self.case.channels;
        let eps = self.case.eps;
        let expected = self.store.channel_f64(&name, channels)?;
        let var = self.store.channel_f64(&self.of_group(k, "var_biased"), channels)?;
        let tol_var = self.store.channel_f64(&self.of_group(k, "tol_var"), channels)?;
        let inv_std = |var: f64| 1.0 / (var.max(0.0) + eps).sqrt();
        let tolerance = var.iter().zip(&tol_var).map(|(&var, &tol)| {
            if !(var + tol).is_finite() {
                return f64::INFINITY;
            }
            let here = inv_std(var);
            (inv_std(var - tol) - here).max(here - inv_std(var + tol)) + here * 2f64.powi(-24)
        });
        Ok(Check::vector(name, Quantity::InvStd, expected, tolerance.collect()))
    }

    /// y of a channel whose values are all the same is the bias, bit for bit; a 16-bit y is the
    /// bias rounded, and what an epilogue makes of it is something else.
    pub(super) fn constant_channels(
        &self,
        k: usize,
        inputs: &[RankTensor],
    ) -> Result<Vec<Check>, String> {
        if self.dtype != DType::F32 || self.epilogue != Epilogue::NONE {
            return Ok(Vec::new());
        }
        let store = self.store;
        let channels = self.case.channels;
        let var = store.channel_f64(&self.of_group(k, "var_biased"), channels)?;
        let bias = if self.case.has_bias { self.parameter("bias")? } else { vec![0.0; channels] };
        let mut checks = Vec::new();
        for (member, (rank, input)) in self.ranks.iter().zip(inputs).enumerate() {
            let map = input.map();
            let constant: Vec<usize> =
                (0..input.values.len()).filter(|&i| var[map.channel(i)] == 0.0).collect();
            if constant.is_empty() {
                continue;
            }
            checks.push(Check {
                name: format!("s{k}.r{rank}.y of constant channels"),
                quantity: Quantity::Output(member),
                expected: constant.iter().map(|&i| f64::from(bias[map.channel(i)])).collect(),
                tolerance: Tolerance::Channel(vec![0.0; channels]),
                map,
                positions: Some(constant),
                ulp: None,
                any_non_finite: false,
            });
        }
        Ok(checks)
    }
}
