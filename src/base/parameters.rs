//! Weight and bias: setting, reading, and recognizing them.

use std::sync::Arc;

use super::Base;
use crate::device::Device;
use crate::error::{ArgumentError, Error, indexed, position};
use crate::state::StateDict;
use crate::tensor::Tensor;

/// Weight and bias of one rank, (C) each, on its device.
#[derive(Debug, Default)]
pub(crate) struct AffineParameters {
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
}

impl Clone for AffineParameters {
    /// The same memory of a GPU; on the host a copy, which takes the place of the original.
    fn clone(&self) -> Self {
        let alias = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::alias);
        Self { weight: alias(&self.weight), bias: alias(&self.bias) }
    }
}

impl AffineParameters {
    pub fn both(&self) -> [Option<&Tensor>; 2] {
        [self.weight.as_ref(), self.bias.as_ref()]
    }
}

impl Base {
    /// Weight and bias of a rank; `None` for what the layer does not have, and for a rank that
    /// there is not.
    pub fn affine(&self, rank: usize) -> [Option<&Tensor>; 2] {
        self.parameters.get(rank).map_or([None, None], AffineParameters::both)
    }

    /// Parameters, read from the first rank's device.
    pub async fn parameter_state(&self) -> Result<StateDict, Error> {
        state_of(&self.parameters).await
    }

    /// Writes the same values into the parameters of every rank, where they lie.
    pub fn set_parameters(
        &mut self,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
    ) -> Result<(), Error> {
        for (name, values) in [("weight", weight), ("bias", bias)] {
            let Some(values) = values else { continue };
            self.check_parameter(name)?;
            self.check_length(name, values.len())?;
        }
        // Everything that can be refused is refused before the first is written.
        for (rank, parameters) in self.parameters.iter().enumerate() {
            let rank = position(rank, self.parameters.len());
            for (name, present) in ["weight", "bias"].into_iter().zip(parameters.both()) {
                let Some(present) = present else { continue };
                present.check_writable().map_err(|error| named(error, name, rank))?;
            }
        }
        for (parameters, device) in
            Arc::make_mut(&mut self.parameters).iter_mut().zip(&self.devices)
        {
            set(&mut parameters.weight, device, weight)?;
            set(&mut parameters.bias, device, bias)?;
        }
        Ok(())
    }

    /// Uses the caller's tensors; an empty list leaves a parameter as it is. `is_read` says that
    /// ranks compare them.
    pub fn set_parameter_tensors(
        &mut self,
        weights: Vec<Tensor>,
        biases: Vec<Tensor>,
        is_read: bool,
    ) -> Result<(), Error> {
        for (name, tensors) in [("weight", &weights), ("bias", &biases)] {
            if tensors.is_empty() {
                continue;
            }
            self.check_parameter(name)?;
            let found = tensors.len();
            let expected = self.devices.len();
            if found != expected {
                return Err(ArgumentError::RankCount { argument: name, found, expected }.into());
            }
            self.check_vectors(name, &tensors.iter().collect::<Vec<_>>())?;
            if is_read {
                tensors.iter().enumerate().try_for_each(|(rank, tensor)| {
                    check_readable(name, position(rank, found), tensor)
                })?;
            }
        }
        let parameters = Arc::make_mut(&mut self.parameters);
        parameters.iter_mut().zip(weights).for_each(|(of, weight)| of.weight = Some(weight));
        parameters.iter_mut().zip(biases).for_each(|(of, bias)| of.bias = Some(bias));
        Ok(())
    }

    /// Checks that the layer has the parameter of that name.
    fn check_parameter(&self, argument: &'static str) -> Result<(), ArgumentError> {
        let (configured, setting) = match argument {
            "weight" => (self.config.weight, "with_weight"),
            _ => (self.config.bias, "with_bias"),
        };
        if configured { Ok(()) } else { Err(ArgumentError::NoSuchParameter { argument, setting }) }
    }

    /// Checks the length of a list with one value per channel.
    pub fn check_length(&self, argument: &'static str, found: usize) -> Result<(), ArgumentError> {
        let found = found as u64;
        let expected = self.config.num_features as u64;
        if found == expected {
            Ok(())
        } else {
            Err(ArgumentError::Length { argument, found, expected })
        }
    }
}

/// The parameters of the first rank, read from its device.
pub(crate) async fn state_of(parameters: &[AffineParameters]) -> Result<StateDict, Error> {
    let [weight, bias] = parameters.first().map_or([None, None], AffineParameters::both);
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        tensor
            .map_or(Ok(()), |tensor| check_readable(name, position(0, parameters.len()), tensor))?;
    }
    let read = async |tensor: Option<&Tensor>| match tensor {
        Some(tensor) => tensor.to_vec().await.map(Some),
        None => Ok(None),
    };
    Ok(StateDict::of_parameters(read(weight).await?, read(bias).await?))
}

/// Refuses a parameter that cannot be read.
pub(crate) fn check_readable(
    name: &'static str,
    rank: Option<usize>,
    tensor: &Tensor,
) -> Result<(), ArgumentError> {
    tensor.check_readable().map_err(|error| match error {
        ArgumentError::Usage { found, expected, .. } => {
            ArgumentError::ParameterUsage { name, rank, found, expected }
        }
        other => other,
    })
}

/// The same error of a buffer, with the name of the tensor that lies in it.
pub(crate) fn named(error: ArgumentError, argument: &str, rank: Option<usize>) -> ArgumentError {
    match error {
        ArgumentError::Usage { found, expected, .. } => {
            ArgumentError::Usage { argument: indexed(argument, rank), found, expected }
        }
        other => other,
    }
}

/// Writes values into a parameter where it lies, the caller's memory included, or makes it.
fn set(
    parameter: &mut Option<Tensor>,
    device: &Device,
    values: Option<&[f32]>,
) -> Result<(), Error> {
    match (parameter, values) {
        (_, None) => {}
        (Some(present), Some(values)) => present.write(values)?,
        (absent, Some(values)) => *absent = Some(device.upload(&[values.len()], values)?),
    }
    Ok(())
}
