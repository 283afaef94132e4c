//! Backward: checks, then one submission.

use super::{ResidentGroup, ResidentSaved};
use crate::config::{AffineGradient, Statistics};
use crate::engine::resident::{BackwardRank, backward};
use crate::engine::{Source, View};
use crate::error::Error;
use crate::group::{GradOutputs, GradTargets, Inputs, zeros_like};
use crate::tensor::Tensor;

/// What backward returns: tensors that the device is working on.
#[derive(Debug)]
pub struct ResidentBackward {
    /// Gradient of the input per rank, of its shape.
    pub grad_inputs: Vec<Tensor>,
    /// Gradient of the weight per rank, (C); `None` without a weight or where it is frozen.
    pub grad_weights: Option<Vec<Tensor>>,
    /// Gradient of the bias per rank, (C); `None` without a bias or where it is frozen.
    pub grad_biases: Option<Vec<Tensor>>,
    /// Gradient of the residual per rank, of the shape of its input; `None` without a residual.
    pub grad_residuals: Option<Vec<Tensor>>,
}

impl ResidentGroup {
    /// The gradients of a forward call, from the gradients of its outputs: as
    /// [`DeviceGroup::backward`](crate::DeviceGroup::backward), without waiting.
    ///
    /// # Errors
    /// [`ArgumentError`](crate::ArgumentError) for tensors that do not fit the layer or are not those of the saved call,
    /// [`GpuError`](crate::GpuError) when the device refuses the submission. The layer itself is never changed.
    pub fn backward<'a>(
        &self,
        saved: &ResidentSaved,
        inputs: impl Into<Inputs<'a>>,
        grad_outputs: &[Tensor],
    ) -> Result<ResidentBackward, Error> {
        let (inputs, group, config) = (inputs.into(), &self.group, self.config());
        group.check_inputs(inputs.x)?;
        let mut grad_inputs = zeros_like(inputs.x)?;
        let mut grad_residuals = config.epilogue.adds_residual().then(|| zeros_like(inputs.x)).transpose()?;
        let mut grad_weights = group.channel_vectors(config.weight)?;
        let mut grad_biases = group.channel_vectors(config.bias)?;
        let targets = GradTargets {
            grad_inputs: Some(&mut grad_inputs),
            grad_weights: grad_weights.as_deref_mut(),
            grad_biases: grad_biases.as_deref_mut(),
            grad_residuals: grad_residuals.as_deref_mut(),
        };
        self.backward_pass(saved, inputs, GradOutputs::Read(grad_outputs), targets, None)?;
        Ok(ResidentBackward { grad_inputs, grad_weights, grad_biases, grad_residuals })
    }

    /// [`backward`](Self::backward) into tensors of the caller.
    ///
    /// # Errors
    /// As [`backward`](Self::backward); [`ArgumentError`](crate::ArgumentError) also for targets that do not fit or overlap
    /// another tensor.
    pub fn backward_into<'a>(
        &self,
        saved: &ResidentSaved,
        inputs: impl Into<Inputs<'a>>,
        grad_outputs: &[Tensor],
        targets: GradTargets<'_>,
    ) -> Result<(), Error> {
        self.backward_pass(saved, inputs.into(), GradOutputs::Read(grad_outputs), targets, None)
    }

    /// [`backward`](Self::backward) with the gradients of the inputs written over `grad_outputs`, which have the layouts
    /// and storage types of the inputs. `targets.grad_inputs` is `None`.
    ///
    /// # Errors
    /// As [`backward_into`](Self::backward_into).
    pub fn backward_in_place<'a>(
        &self,
        saved: &ResidentSaved,
        inputs: impl Into<Inputs<'a>>,
        grad_outputs: &mut [Tensor],
        targets: GradTargets<'_>,
    ) -> Result<(), Error> {
        let inputs = inputs.into();
        self.group.check_backward_in_place(inputs, grad_outputs, &targets)?;
        self.backward_pass(saved, inputs, GradOutputs::Over(grad_outputs), targets, None)
    }

    /// [`backward_into`](Self::backward_into) recorded into the application's encoder, for a submission of its own; the
    /// forward call may be in the same one.
    ///
    /// # Errors
    /// As [`backward_into`](Self::backward_into), before anything is recorded; otherwise as
    /// [`encode_forward`](Self::encode_forward).
    pub fn encode_backward<'a>(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        saved: &ResidentSaved,
        inputs: impl Into<Inputs<'a>>,
        grad_outputs: &[Tensor],
        targets: GradTargets<'_>,
    ) -> Result<(), Error> {
        saved.keep_out();
        self.backward_pass(saved, inputs.into(), GradOutputs::Read(grad_outputs), targets, Some(encoder))
    }

    fn backward_pass(
        &self,
        saved: &ResidentSaved,
        inputs: Inputs<'_>,
        mut grad_outputs: GradOutputs<'_>,
        mut targets: GradTargets<'_>,
        encoder: Option<&mut wgpu::CommandEncoder>,
    ) -> Result<(), Error> {
        let (group, config) = (&self.group, self.config());
        let [shapes, grad_shapes] = group.check_backward(&saved.call, inputs, grad_outputs.tensors(), &targets)?;
        // Everything of a rank in turn.
        let (read, over) = match &mut grad_outputs {
            GradOutputs::Read(tensors) => (Some(*tensors), None),
            GradOutputs::Over(tensors) => (None, Some(&mut **tensors)),
        };
        let mut grad_inputs = over.into_iter().chain(targets.grad_inputs.as_deref_mut()).flatten();
        let mut grad_weights = targets.grad_weights.iter_mut().flat_map(|tensors| tensors.iter_mut());
        let mut grad_biases = targets.grad_biases.iter_mut().flat_map(|tensors| tensors.iter_mut());
        let mut grad_residuals = targets.grad_residuals.iter_mut().flat_map(|tensors| tensors.iter_mut());
        let ranks = grad_shapes.iter().enumerate().map(|(rank, shape)| BackwardRank {
            g: read.map_or(Source::Over(shape), |tensors| Source::Apart(View { tensor: &tensors[rank], shape })),
            upstream: saved.call.upstream(inputs, &shapes, rank),
            layer: group.engine_layer(rank),
            grad_input: grad_inputs.next(),
            grad_residual: grad_residuals.next(),
            grad_weight: grad_weights.next(),
            grad_bias: grad_biases.next(),
        });
        // Calls that take no statistics of the group give every rank its own.
        let parameters_of_all = match config.affine_gradient {
            _ if saved.call.statistics != Statistics::Group => None,
            AffineGradient::Local => None,
            AffineGradient::GroupSum => Some(1.0),
            AffineGradient::GroupMean => Some(self.world_size() as f32),
        };
        let (device, channels) = (self.device(), config.num_features);
        backward(device, ranks.collect(), channels, &saved.centers, parameters_of_all, encoder)
    }
}
