//! The checks of a call's arguments, all of them before anything is submitted or changed.

use super::DeviceGroup;
use crate::engine;
use crate::error::{ArgumentError, Error};
use crate::shape::Shape;
use crate::tensor::Tensor;

impl DeviceGroup {
    /// Checks `inputs` and reads their shapes.
    pub(super) fn check_inputs(&self, inputs: &[Tensor]) -> Result<Vec<Shape>, Error> {
        self.check_ranks("inputs", inputs)?;
        let mut shapes = Vec::with_capacity(inputs.len());
        for (rank, input) in inputs.iter().enumerate() {
            let argument = "inputs";
            let shape = Shape::new(input.dims()).map_err(|source| ArgumentError::Shape { argument, rank, source })?;
            let (found, expected) = (shape.channels(), self.config.num_features);
            if found != expected {
                let dims = input.dims().to_vec();
                return Err(ArgumentError::Channels { argument, rank, dims, found, expected }.into());
            }
            engine::check_limits(input, &shape)?;
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// Checks that `outputs` are as `inputs`, and that no output shares memory with anything.
    pub(super) fn check_outputs(&self, inputs: &[Tensor], outputs: &[Tensor]) -> Result<(), Error> {
        let argument = "outputs";
        self.check_ranks(argument, outputs)?;
        for (rank, (output, input)) in outputs.iter().zip(inputs).enumerate() {
            if output.dims() != input.dims() {
                let (found, expected) = (output.dims().to_vec(), input.dims().to_vec());
                return Err(ArgumentError::Dims { argument, rank, found, expected }.into());
            }
            let overlapping = |tensors: &[Tensor]| tensors.iter().position(|other| output.overlaps(other));
            let other = overlapping(inputs).map(|rank| ("inputs", rank));
            if let Some((other, other_rank)) =
                other.or_else(|| overlapping(&outputs[..rank]).map(|rank| (argument, rank)))
            {
                return Err(ArgumentError::Overlap { argument, rank, other, other_rank }.into());
            }
        }
        Ok(())
    }

    /// Checks that there is one tensor per rank, each on its rank's device.
    fn check_ranks(&self, argument: &'static str, tensors: &[Tensor]) -> Result<(), Error> {
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
