//! Backward: the forms of the call, and what it returns.

mod phases;

use super::{DeviceGroup, Inputs, PhaseTimes, SavedForward, end, zeros_like};
use crate::collective::Phase;
use crate::error::Error;
use crate::stats::GradientSums;
use crate::tensor::Tensor;
pub(crate) use phases::GradOutputs;

/// What backward returns.
#[derive(Debug)]
pub struct Backward {
    /// Gradient of the input per rank, of its shape, on its device.
    pub grad_inputs: Vec<Tensor>,
    /// Gradient of the weight per rank, (C); `None` without a weight or where it is frozen.
    pub grad_weights: Option<Vec<Tensor>>,
    /// Gradient of the bias per rank, (C); `None` without a bias or where it is frozen.
    pub grad_biases: Option<Vec<Tensor>>,
    /// Gradient of the residual per rank, of the shape of its input; `None` without a residual.
    pub grad_residuals: Option<Vec<Tensor>>,
    /// Sums and times of the call.
    pub report: BackwardReport,
}

/// The sums that a backward call took, and how long its phases lasted.
#[derive(Clone, Debug)]
pub struct BackwardReport {
    /// Sums over each rank's own values, `local[rank][channel]`.
    pub local: Vec<Vec<GradientSums>>,
    /// Sums over the group; empty where nothing was exchanged.
    pub global: Vec<GradientSums>,
    /// Times of the phases.
    pub timing: PhaseTimes,
}

/// Where backward writes: one tensor per rank each. What is `None` is not wanted and not computed; the exchange takes
/// place all the same.
#[derive(Debug, Default)]
pub struct GradTargets<'a> {
    /// Gradients of the inputs, of their shapes.
    pub grad_inputs: Option<&'a mut [Tensor]>,
    /// Gradients of the weight, (C).
    pub grad_weights: Option<&'a mut [Tensor]>,
    /// Gradients of the bias, (C).
    pub grad_biases: Option<&'a mut [Tensor]>,
    /// Gradients of the residuals, of the shapes of the inputs.
    pub grad_residuals: Option<&'a mut [Tensor]>,
}

impl DeviceGroup {
    /// The gradients of a forward call, from the gradients of its outputs.
    ///
    /// With g = grad_output·act'(v), A = Σg, B = Σ g·(x − mean), N values per channel in the group (Ioffe and Szegedy, 2015,
    /// section 3, with the sums over all ranks):
    ///
    /// ```text
    /// grad_input  = weight·inv_std·(g − A/N − (x − mean)·inv_std²·B/N)
    /// grad_weight = inv_std·Σ g·(x − mean)      grad_bias = Σg
    /// ```
    ///
    /// The last two sums are over the rank, or as [`AffineGradient`](crate::AffineGradient) says where the forward call communicated. Where
    /// running statistics normalized, they are constants: grad_input = g·weight·inv_std. `inputs` are those of forward,
    /// unchanged, with the residuals where [`SavedForward::needs_residuals`] says so; `grad_outputs` have their shapes, and may
    /// have another layout. The gradient of a residual is g.
    ///
    /// # Errors
    /// [`ArgumentError`](crate::ArgumentError) for tensors that do not fit the group or are not those of the saved call,
    /// [`GpuError`](crate::GpuError) when a device fails. The layer itself is never changed.
    pub async fn backward(
        &self,
        saved: &SavedForward,
        inputs: impl Into<Inputs<'_>>,
        grad_outputs: &[Tensor],
    ) -> Result<Backward, Error> {
        let inputs = inputs.into();
        let call = self.begin(Phase::Backward, saved.exchange, saved.call.statistics)?;
        let gradients = async {
            self.check_inputs(inputs.x)?;
            let mut grad_inputs = zeros_like(inputs.x)?;
            let adds_residual = self.config.epilogue.adds_residual();
            let mut grad_residuals = adds_residual.then(|| zeros_like(inputs.x)).transpose()?;
            let mut grad_weights = self.channel_vectors(self.config.weight)?;
            let mut grad_biases = self.channel_vectors(self.config.bias)?;
            let targets = GradTargets {
                grad_inputs: Some(&mut grad_inputs),
                grad_weights: grad_weights.as_deref_mut(),
                grad_biases: grad_biases.as_deref_mut(),
                grad_residuals: grad_residuals.as_deref_mut(),
            };
            let grad_outputs = GradOutputs::Read(grad_outputs);
            let report = self.backward_phases(call.as_ref(), saved, inputs, grad_outputs, targets).await?;
            Ok(Backward { grad_inputs, grad_weights, grad_biases, grad_residuals, report })
        };
        let result = gradients.await;
        end(call, result)
    }

    /// [`backward`](Self::backward) into tensors of the caller.
    ///
    /// # Errors
    /// As [`backward`](Self::backward); [`ArgumentError`](crate::ArgumentError) also for targets that do not fit or overlap
    /// another tensor.
    pub async fn backward_into(
        &self,
        saved: &SavedForward,
        inputs: impl Into<Inputs<'_>>,
        grad_outputs: &[Tensor],
        targets: GradTargets<'_>,
    ) -> Result<BackwardReport, Error> {
        let inputs = inputs.into();
        let call = self.begin(Phase::Backward, saved.exchange, saved.call.statistics)?;
        let grad_outputs = GradOutputs::Read(grad_outputs);
        let result = self.backward_phases(call.as_ref(), saved, inputs, grad_outputs, targets).await;
        end(call, result)
    }

    /// [`backward`](Self::backward) with the gradients of the inputs written over `grad_outputs`, which have the layouts
    /// and storage types of the inputs. `targets.grad_inputs` is `None`.
    ///
    /// # Errors
    /// As [`backward_into`](Self::backward_into). When a device fails, `grad_outputs` may be partly written.
    pub async fn backward_in_place(
        &self,
        saved: &SavedForward,
        inputs: impl Into<Inputs<'_>>,
        grad_outputs: &mut [Tensor],
        targets: GradTargets<'_>,
    ) -> Result<BackwardReport, Error> {
        let inputs = inputs.into();
        let call = self.begin(Phase::Backward, saved.exchange, saved.call.statistics)?;
        let gradients = async {
            self.check_backward_in_place(inputs, grad_outputs, &targets)?;
            self.backward_phases(call.as_ref(), saved, inputs, GradOutputs::Over(grad_outputs), targets).await
        };
        let result = gradients.await;
        end(call, result)
    }
}
