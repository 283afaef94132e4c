//! The phases of backward: gradient sums everywhere, gather, add up, send back, gradients everywhere.

use std::time::Instant;

use futures::future::try_join_all;

use super::{BackwardReport, GradTargets};
use crate::config::AffineGradient;
use crate::coordinator::{Call, Contribution};
use crate::engine::{self, Source, Upstream, View};
use crate::error::Error;
use crate::group::{DeviceGroup, Inputs, PhaseTimes, SavedForward};
use crate::shape::Shape;
use crate::stats::GradientSums;
use crate::tensor::Tensor;

/// Upstream gradients: to be read, or to be written over by the gradients of the inputs.
pub(crate) enum GradOutputs<'a> {
    Read(&'a [Tensor]),
    Over(&'a mut [Tensor]),
}

impl GradOutputs<'_> {
    pub fn tensors(&self) -> &[Tensor] {
        match self {
            Self::Read(tensors) => tensors,
            Self::Over(tensors) => tensors,
        }
    }
}

/// What the last kernel of backward reads and writes besides x.
struct Written<'a> {
    grad_outputs: GradOutputs<'a>,
    grad_inputs: Option<&'a mut [Tensor]>,
    grad_residuals: Option<&'a mut [Tensor]>,
}

impl Written<'_> {
    fn is_wanted(&self) -> bool {
        matches!(self.grad_outputs, GradOutputs::Over(_)) || self.grad_inputs.is_some() || self.grad_residuals.is_some()
    }
}

impl DeviceGroup {
    pub(super) async fn backward_phases(
        &self,
        call: Option<&Call>,
        saved: &SavedForward,
        inputs: Inputs<'_>,
        grad_outputs: GradOutputs<'_>,
        mut targets: GradTargets<'_>,
    ) -> Result<BackwardReport, Error> {
        let [shapes, grad_shapes] = self.check_backward(&saved.call, inputs, grad_outputs.tensors(), &targets)?;
        let upstreams: Vec<_> = (0..shapes.len()).map(|rank| saved.call.upstream(inputs, &shapes, rank)).collect();
        let started = Instant::now();
        let views = grad_outputs.tensors().iter().zip(&grad_shapes).map(|(tensor, shape)| View { tensor, shape });
        let wanted = [targets.grad_inputs.as_deref_mut(), targets.grad_residuals.as_deref_mut()];
        let together = self.backward_together(saved, views, &upstreams, wanted);
        let done = together.is_some();
        let local = match together {
            Some(local) => local,
            None => self.local_gradient_sums(saved, grad_outputs.tensors(), &grad_shapes, &upstreams).await?,
        };
        let gathered = Instant::now();
        let global = match call {
            Some(call) => {
                let part = Contribution { call, local: &local, state: None };
                let merged = Call::merge_stateless(&[part]).await.map_err(|(_, error)| error)?;
                call.pass();
                merged.into_iter().flatten().collect()
            }
            None => Vec::new(),
        };
        let merged = Instant::now();
        // What the statistics of a rank depend on: the group's values, or its own.
        let sums_of = |rank: usize| if global.is_empty() { local[rank].as_slice() } else { global.as_slice() };
        let written =
            Written { grad_outputs, grad_inputs: targets.grad_inputs, grad_residuals: targets.grad_residuals };
        if !done {
            self.grad_inputs(saved, &grad_shapes, &upstreams, sums_of, written).await?;
        }
        let affine = |rank: usize| self.affine_sums(rank, &local, &global);
        for (rank, target) in targets.grad_weights.into_iter().flatten().enumerate() {
            let inv_std = saved.normalization(rank).inv_std.iter();
            let gradient = affine(rank).zip(inv_std).map(|(sums, inv_std)| weight_gradient(sums, *inv_std));
            target.write(&gradient.collect::<Vec<_>>())?;
        }
        for (rank, target) in targets.grad_biases.into_iter().flatten().enumerate() {
            target.write(&affine(rank).map(|sums| sums.sum_dy as f32).collect::<Vec<_>>())?;
        }
        let timing = PhaseTimes { statistics: gathered - started, merge: merged - gathered, apply: merged.elapsed() };
        Ok(BackwardReport { local, global, timing })
    }

    /// Local sums of every rank; all GPUs have their work before the host begins with its own.
    async fn local_gradient_sums(
        &self,
        saved: &SavedForward,
        grad_outputs: &[Tensor],
        grad_shapes: &[Shape],
        upstreams: &[Upstream<'_>],
    ) -> Result<Vec<Vec<GradientSums>>, Error> {
        let mut pending: Vec<_> = upstreams.iter().map(|_| None).collect();
        for rank in self.gpus_first() {
            let (normalization, layer) = (saved.normalization(rank), self.engine_layer(rank));
            let g = View { tensor: &grad_outputs[rank], shape: &grad_shapes[rank] };
            pending[rank] = Some(engine::local_gradient_sums(g, upstreams[rank], normalization, layer)?);
        }
        try_join_all(pending.into_iter().flatten()).await
    }

    /// Gradients of the inputs and of the residuals, of what is wanted, from the sums that the statistics of each rank
    /// depend on.
    async fn grad_inputs<'s>(
        &self,
        saved: &SavedForward,
        grad_shapes: &[Shape],
        upstreams: &[Upstream<'_>],
        sums_of: impl Fn(usize) -> &'s [GradientSums],
        mut written: Written<'_>,
    ) -> Result<(), Error> {
        if !written.is_wanted() {
            return Ok(());
        }
        let mut pending = Vec::with_capacity(upstreams.len());
        for rank in self.outputs_order() {
            let normalization = saved.normalization(rank);
            let centering = normalization.grad_centering(sums_of(rank));
            let depends_on_batch = normalization.batch_count.is_some();
            // One kernel writes both; a gradient of the input that nobody wants goes nowhere.
            let mut unwanted = None;
            let (g, grad_input) = match (&mut written.grad_outputs, &mut written.grad_inputs) {
                (GradOutputs::Over(tensors), _) => (Source::Over(&grad_shapes[rank]), &mut tensors[rank]),
                (GradOutputs::Read(tensors), inputs) => {
                    let g = Source::Apart(View { tensor: &tensors[rank], shape: &grad_shapes[rank] });
                    match inputs {
                        Some(inputs) => (g, &mut inputs[rank]),
                        None => (g, unwanted.insert(upstreams[rank].x.tensor.zeros_like()?)),
                    }
                }
            };
            let grad_residual = written.grad_residuals.as_mut().map(|residuals| &mut residuals[rank]);
            let (upstream, layer) = (upstreams[rank], self.engine_layer(rank));
            let gradient =
                engine::grad_input(g, upstream, depends_on_batch, &centering, layer, grad_input, grad_residual)?;
            pending.push(gradient);
        }
        try_join_all(pending).await?;
        Ok(())
    }

    /// The sums of which a rank's gradients of weight and bias are made.
    fn affine_sums<'s>(
        &self,
        rank: usize,
        local: &'s [Vec<GradientSums>],
        global: &'s [GradientSums],
    ) -> impl Iterator<Item = GradientSums> + use<'s> {
        let communicated = !global.is_empty();
        let (sums, divisor) = match self.config.affine_gradient {
            AffineGradient::GroupSum if communicated => (global, 1.0),
            AffineGradient::GroupMean if communicated => (global, self.exchange.total_ranks() as f64),
            _ => (local[rank].as_slice(), 1.0),
        };
        sums.iter()
            .map(move |sums| GradientSums { sum_dy: sums.sum_dy / divisor, sum_dy_xmu: sums.sum_dy_xmu / divisor })
    }

    /// A vector of channels for the gradient of a parameter on every rank, where it gets one.
    pub(crate) fn channel_vectors(&self, configured: bool) -> Result<Option<Vec<Tensor>>, Error> {
        let vectors = self.devices.iter().map(|device| device.zeros(&[self.config.num_features]));
        self.has_gradient(configured).then(|| vectors.collect()).transpose()
    }

    /// Whether a parameter that is configured gets a gradient.
    pub(crate) fn has_gradient(&self, configured: bool) -> bool {
        configured && !self.config.freeze_affine
    }
}

/// inv_std·Σ g·(x − mean); 0 for a sum of nothing, also where another rank made the channel NaN.
fn weight_gradient(sums: GradientSums, inv_std: f64) -> f32 {
    if sums.sum_dy_xmu == 0.0 { 0.0 } else { (sums.sum_dy_xmu * inv_std) as f32 }
}
