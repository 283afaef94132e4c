//! The checks of a call's arguments, all of them before anything is submitted or changed.

use super::{DeviceGroup, GradTargets, Inputs, SavedCall};
use crate::dtype::DType;
use crate::engine::{self, View};
use crate::error::{ArgumentError, Error};
use crate::shape::Shape;
use crate::stats::RunningStats;
use crate::tensor::Tensor;

impl DeviceGroup {
    /// Checks what forward is given, targets included, and reads the shapes of the inputs.
    pub(crate) fn check_forward(&self, inputs: Inputs<'_>, outputs: &[Tensor]) -> Result<Vec<Shape>, Error> {
        let shapes = self.check_inputs(inputs.x)?;
        self.check_residuals(inputs, self.config.epilogue.adds_residual())?;
        let sources = [("inputs", inputs.x), ("residuals", inputs.residuals.unwrap_or(&[]))];
        self.check_targets("outputs", outputs, &sources)?;
        self.check_like("outputs", outputs, inputs.x, true)?;
        Ok(shapes)
    }

    /// Checks what forward in place is given, and reads the shapes.
    pub(crate) fn check_forward_in_place(
        &self,
        tensors: &[Tensor],
        residuals: Option<&[Tensor]>,
    ) -> Result<Vec<Shape>, Error> {
        let shapes = self.check_inputs(tensors)?;
        self.check_residuals(Inputs { x: tensors, residuals }, self.config.epilogue.adds_residual())?;
        self.check_targets("inputs", tensors, &[("residuals", residuals.unwrap_or(&[]))])?;
        Ok(shapes)
    }

    /// Checks that the gradients of the inputs may be written over `grad_outputs`, beyond what all of backward checks.
    pub(crate) fn check_backward_in_place(
        &self,
        inputs: Inputs<'_>,
        grad_outputs: &[Tensor],
        targets: &GradTargets<'_>,
    ) -> Result<(), Error> {
        if targets.grad_inputs.is_some() {
            let (argument, reason) = ("targets.grad_inputs", "they are written over grad_outputs");
            return Err(ArgumentError::NotWanted { argument, reason }.into());
        }
        let sources = [("inputs", inputs.x), ("residuals", inputs.residuals.unwrap_or(&[]))];
        self.check_targets("grad_outputs", grad_outputs, &sources)?;
        self.check_like("grad_outputs", grad_outputs, inputs.x, false)
    }

    /// Checks what backward is given, targets included, and reads the shapes of inputs and upstream gradients.
    pub(crate) fn check_backward(
        &self,
        saved: &SavedCall,
        inputs: Inputs<'_>,
        grad_outputs: &[Tensor],
        targets: &GradTargets<'_>,
    ) -> Result<[Vec<Shape>; 2], Error> {
        let shapes = self.check_inputs(inputs.x)?;
        self.check_residuals(inputs, saved.needs_residuals())?;
        saved.check(self, inputs)?;
        let grad_shapes = self.check_grad_outputs(grad_outputs, &shapes, inputs.x)?;
        self.check_grad_targets(inputs, grad_outputs, targets)?;
        Ok([shapes, grad_shapes])
    }

    /// Checks that running statistics are of this layer.
    pub(crate) fn check_running(&self, running: &RunningStats) -> Result<(), ArgumentError> {
        if !self.config.track_running_stats {
            return Err(ArgumentError::NoSuchParameter { name: "running statistics" });
        }
        self.check_length("running_mean", running.mean.len())?;
        self.check_length("running_var", running.var.len())
    }

    /// Checks `inputs` and reads their shapes.
    pub(crate) fn check_inputs(&self, inputs: &[Tensor]) -> Result<Vec<Shape>, Error> {
        self.check_ranks("inputs", inputs)?;
        let mut shapes = Vec::with_capacity(inputs.len());
        for (rank, input) in inputs.iter().enumerate() {
            let argument = "inputs";
            let shape = input.shape().map_err(|source| ArgumentError::Shape { argument, rank, source })?;
            let (found, expected) = (shape.channels(), self.config.num_features);
            if found != expected {
                let dims = input.dims().to_vec();
                return Err(ArgumentError::Channels { argument, rank, dims, found, expected }.into());
            }
            engine::check_limits(View { tensor: input, shape: &shape })?;
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// Checks that there are residuals where they are needed, and only there, each as its input.
    pub(super) fn check_residuals(&self, inputs: Inputs<'_>, needed: bool) -> Result<(), Error> {
        match inputs.residuals {
            Some(residuals) if self.config.epilogue.adds_residual() => {
                self.check_ranks("residuals", residuals)?;
                self.check_like("residuals", residuals, inputs.x, false)
            }
            Some(_) => Err(ArgumentError::NoSuchParameter { name: "residuals" }.into()),
            None if needed => Err(ArgumentError::NoResidual { epilogue: self.config.epilogue }.into()),
            None => Ok(()),
        }
    }

    /// Checks that `tensors` have the dimensions and the layout of the inputs, storage types that go with theirs (the
    /// same, or f32 with another where `mixed`), and sizes that their devices can bind.
    pub(super) fn check_like(
        &self,
        argument: &'static str,
        tensors: &[Tensor],
        inputs: &[Tensor],
        mixed: bool,
    ) -> Result<(), Error> {
        check_dims(argument, tensors, |rank| inputs[rank].dims())?;
        for (rank, (tensor, input)) in tensors.iter().zip(inputs).enumerate() {
            let (found, expected) = (tensor.layout(), input.layout());
            if found != expected {
                return Err(ArgumentError::Layout { argument, rank, found, expected }.into());
            }
            check_dtype(argument, rank, tensor.dtype(), input.dtype(), mixed)?;
            let shape = tensor.shape().map_err(|source| ArgumentError::Shape { argument, rank, source })?;
            engine::check_limits(View { tensor, shape: &shape })?;
        }
        Ok(())
    }

    /// Reads the shapes of upstream gradients, which may be of another layout than the inputs.
    pub(super) fn check_grad_outputs(
        &self,
        tensors: &[Tensor],
        shapes: &[Shape],
        inputs: &[Tensor],
    ) -> Result<Vec<Shape>, Error> {
        let argument = "grad_outputs";
        self.check_ranks(argument, tensors)?;
        let mut grad_shapes = Vec::with_capacity(tensors.len());
        for (rank, (tensor, input)) in tensors.iter().zip(inputs).enumerate() {
            let shape = tensor.shape().map_err(|source| ArgumentError::Shape { argument, rank, source })?;
            if !shape.is_like(&shapes[rank]) {
                let (found, expected) = (tensor.dims().to_vec(), input.dims().to_vec());
                return Err(ArgumentError::Dims { argument, rank, found, expected }.into());
            }
            check_dtype(argument, rank, tensor.dtype(), input.dtype(), true)?;
            engine::check_limits(View { tensor, shape: &shape })?;
            grad_shapes.push(shape);
        }
        Ok(grad_shapes)
    }

    /// Checks that there is one target per rank, with memory of its own: shared neither with the layer's parameters nor
    /// with any of `sources`.
    pub(super) fn check_targets(
        &self,
        argument: &'static str,
        targets: &[Tensor],
        sources: &[(&'static str, &[Tensor])],
    ) -> Result<(), Error> {
        self.check_ranks(argument, targets)?;
        let overlap = |rank, other, other_rank| ArgumentError::Overlap { argument, rank, other, other_rank };
        for (rank, target) in targets.iter().enumerate() {
            let earlier = (argument, &targets[..rank]);
            for (other, tensors) in sources.iter().copied().chain([earlier]) {
                if let Some(other_rank) = tensors.iter().position(|tensor| target.overlaps(tensor)) {
                    return Err(overlap(rank, other, other_rank).into());
                }
            }
            for (other_rank, parameters) in self.parameters.iter().enumerate() {
                for (other, parameter) in ["weight", "bias"].into_iter().zip(parameters.both()) {
                    if parameter.is_some_and(|parameter| target.overlaps(parameter)) {
                        return Err(overlap(rank, other, other_rank).into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that targets are of gradients that the layer has, fit, and have memory of their own.
    fn check_grad_targets(
        &self,
        inputs: Inputs<'_>,
        grad_outputs: &[Tensor],
        targets: &GradTargets<'_>,
    ) -> Result<(), Error> {
        let residuals = inputs.residuals.unwrap_or(&[]);
        let mut sources = vec![("inputs", inputs.x), ("residuals", residuals), ("grad_outputs", grad_outputs)];
        let activations = [
            ("grad_inputs", true, targets.grad_inputs.as_deref()),
            ("grad_residuals", self.config.epilogue.adds_residual(), targets.grad_residuals.as_deref()),
        ];
        for (argument, configured, tensors) in activations {
            let Some(tensors) = tensors else { continue };
            if !configured {
                return Err(ArgumentError::NoSuchParameter { name: "residuals" }.into());
            }
            self.check_targets(argument, tensors, &sources)?;
            self.check_like(argument, tensors, inputs.x, false)?;
            sources.push((argument, tensors));
        }
        let vectors = [
            ("grad_weights", "weight", self.has_gradient(self.config.weight), targets.grad_weights.as_deref()),
            ("grad_biases", "bias", self.has_gradient(self.config.bias), targets.grad_biases.as_deref()),
        ];
        for (argument, name, configured, tensors) in vectors {
            let Some(tensors) = tensors else { continue };
            if !configured {
                return Err(ArgumentError::NoSuchParameter { name }.into());
            }
            self.check_targets(argument, tensors, &sources)?;
            self.check_vectors(argument, tensors)?;
            tensors.iter().try_for_each(Tensor::check_writable)?;
            sources.push((argument, tensors));
        }
        Ok(())
    }

    /// Checks that there is one tensor per rank of dimensions (C), stored as f32.
    pub(super) fn check_vectors(&self, argument: &'static str, tensors: &[Tensor]) -> Result<(), Error> {
        self.check_ranks(argument, tensors)?;
        check_dims(argument, tensors, |_| std::slice::from_ref(&self.config.num_features))?;
        let mut found = tensors.iter().enumerate();
        found.try_for_each(|(rank, tensor)| check_dtype(argument, rank, tensor.dtype(), DType::F32, false))
    }

    /// Checks that there is one tensor per rank, each on its rank's device.
    pub(super) fn check_ranks(&self, argument: &'static str, tensors: &[Tensor]) -> Result<(), Error> {
        let (found, expected) = (tensors.len(), self.devices.len());
        if found != expected {
            return Err(ArgumentError::RankCount { argument, found, expected }.into());
        }
        for (rank, (tensor, device)) in tensors.iter().zip(&self.devices).enumerate() {
            if !tensor.device().is_same(device) {
                let (found, expected) = (tensor.device().to_string(), device.to_string());
                return Err(ArgumentError::WrongDevice { argument, rank, found, expected }.into());
            }
        }
        Ok(())
    }
}

/// Checks every rank's dimensions.
fn check_dims<'a>(
    argument: &'static str,
    tensors: &[Tensor],
    expected: impl Fn(usize) -> &'a [usize],
) -> Result<(), Error> {
    for (rank, tensor) in tensors.iter().enumerate() {
        let (found, expected) = (tensor.dims(), expected(rank));
        if found != expected {
            let (found, expected) = (found.to_vec(), expected.to_vec());
            return Err(ArgumentError::Dims { argument, rank, found, expected }.into());
        }
    }
    Ok(())
}

/// Checks that a storage type goes with an input's.
fn check_dtype(argument: &'static str, rank: usize, found: DType, input: DType, mixed: bool) -> Result<(), Error> {
    if found == input || (mixed && found.goes_with(input)) {
        return Ok(());
    }
    let expected = if mixed { format!("{input} or f32, as its input is {input}") } else { input.to_string() };
    Err(ArgumentError::DType { argument: format!("{argument}[{rank}]"), found, expected }.into())
}
