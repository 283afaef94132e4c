//! The calls: checks, settings of a pass, and the pass itself.

use super::{BatchNorm, running};
use crate::config::{AffineGradient, Mode, Statistics};
use crate::engine::resident::{self, Encoding, ForwardPass};
use crate::engine::{ForwardRank, Steps};
use crate::error::Error;
use crate::plan::{DoubleParameters, ParameterGradients};
use crate::request::{
    BackwardParts, DoubleGradients, DoubleParts, Encode, ForwardParts, Gradients, Normalized,
};
use crate::saved::{OnDevice, Saved};
use crate::tensor::Output;
use crate::workspace::Workspace;

impl BatchNorm {
    pub(super) fn forward_pass<O: Output>(
        &self,
        mode: Mode,
        mut parts: ForwardParts<'_>,
    ) -> Result<Normalized<O>, Error> {
        let config = self.config();
        let statistics = match config.statistics(mode) {
            // The layer has no running statistics, and the caller gives them.
            Statistics::Local if parts.running.now.is_some() => Statistics::Running,
            statistics => statistics,
        };
        let mut checked = self.base.check_forward(&parts, statistics)?;
        let given = running::check(&self.base, &mut parts, statistics)?;
        let normalizer = self.normalizer(statistics, &parts, &given, &checked.shapes)?;
        let encoding = self.encoding(parts.encode.take())?;
        let memory = encoding.as_ref().map(|encoding| encoding.memory);
        let steps = Steps { sums: statistics != Statistics::Running, apply: true };
        let mut ranks = checked.ranks(&self.base, parts, steps, memory)?;
        let channels = config.num_features;
        let pass = ForwardPass {
            channels,
            eps: config.eps,
            exact: config.reproducible,
            normalizer,
            running: given.place(&self.running),
            rank_weights: &self.rank_weights,
        };
        let centers = resident::forward(&self.gpu, &mut ranks, pass, encoding)?;
        checked.call.kept = ForwardRank::kept(ranks);
        let mean_and_inv_std =
            given.is_empty().then(|| centers.mean_and_inv_std(self.device(), &self.gpu, channels));
        let saved = Saved::of_device(checked.call, OnDevice { centers, mean_and_inv_std });
        Ok(Normalized { output: O::of_list(checked.outputs)?, saved })
    }

    pub(super) fn backward_pass<O: Output>(
        &self,
        saved: &Saved,
        mut parts: BackwardParts<'_>,
    ) -> Result<Gradients<O>, Error> {
        let config = self.config();
        let centers = saved.on_device()?;
        let steps = Steps { sums: true, apply: true };
        let mut checked = self.base.check_backward(saved.call(), &parts, steps)?;
        let encoding = self.encoding(parts.inputs.encode.take())?;
        if encoding.is_some() {
            saved.retain();
        }
        let accumulate = parts.accumulate;
        let mut ranks = checked.ranks(&self.base, saved.call(), parts, steps)?;
        let of_all = self.divisor(saved, ranks.len());
        let parameters = ParameterGradients { of_all, accumulate, ..ParameterGradients::default() };
        resident::backward(
            &self.gpu,
            &mut ranks,
            config.num_features,
            centers,
            parameters,
            encoding,
        )?;
        checked.made.into_output(None)
    }

    pub(super) fn double_backward_pass<O: Output>(
        &self,
        saved: &Saved,
        mut parts: DoubleParts<'_>,
    ) -> Result<DoubleGradients<O>, Error> {
        let centers = saved.on_device()?;
        let checked = self.base.check_double(saved.call(), &parts)?;
        let mut checked = checked.with_weight(&self.base)?;
        let encoding = self.encoding(parts.inputs.encode.take())?;
        if encoding.is_some() {
            saved.retain();
        }
        let mut ranks = checked.ranks(&self.base, saved.call(), &parts)?;
        let parameters = DoubleParameters {
            of_all: self.divisor(saved, ranks.len()),
            has_cotangent: parts.input.is_some(),
            has_parameters: [parts.weight.is_some(), parts.bias.is_some()],
            weight: false,
        };
        let channels = self.config().num_features;
        resident::double_backward(&self.gpu, &mut ranks, channels, centers, parameters, encoding)?;
        drop(ranks);
        checked.into_output()
    }

    /// The divisor of the parameters' gradients over all ranks; `None` if each rank gets its own
    /// sums, as after calls without statistics of all ranks.
    fn divisor(&self, saved: &Saved, ranks: usize) -> Option<f32> {
        match self.config().affine_gradient {
            _ if saved.call().statistics != Statistics::Group => None,
            AffineGradient::Local => None,
            AffineGradient::GroupSum => Some(1.0),
            AffineGradient::GroupMean => Some(ranks as f32),
        }
    }

    /// The application's encoder and the memory of its workspace.
    fn encoding<'e>(&self, encode: Encode<'e>) -> Result<Option<Encoding<'e>>, Error> {
        let Some((encoder, workspace)) = encode else { return Ok(None) };
        let workspace: &'e Workspace = workspace;
        Ok(Some(Encoding { encoder, memory: workspace.memory(self.device())? }))
    }
}
