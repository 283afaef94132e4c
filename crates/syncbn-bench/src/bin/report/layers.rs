//! Owns the calls of the library: through the layer that merges on the host, or the one that merges
//! on the device.

use std::error::Error;

use half::{bf16, f16};
use pollster::block_on;
use serde::Serialize;
use syncbn::tensor::Element;
use syncbn::{Backward, BatchNorm, BatchNormConfig, DType, Device, Forward, SyncBatchNorm, Tensor};

use crate::problem::{Problem, Shard, channels_first, stored};
use syncbn_bench::workloads::stored as stored_dims;

/// Where the ranks' statistics merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// `SyncBatchNorm`: in f64, after a round trip.
    Host,
    /// `BatchNorm`: in f32, without one.
    Device,
}

impl Merge {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Device => "device",
        }
    }
}

/// An output of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    Y,
    GradInput,
    GradResidual,
    GradWeight,
    GradBias,
}

impl Output {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Y => "y",
            Self::GradInput => "grad_input",
            Self::GradResidual => "grad_residual",
            Self::GradWeight => "grad_weight",
            Self::GradBias => "grad_bias",
        }
    }

    /// Whether it has one value per channel instead of the shape of x.
    pub fn is_vector(self) -> bool {
        matches!(self, Self::GradWeight | Self::GradBias)
    }
}

/// Every output of a problem: the values of each rank, as (N, C, L) or (C).
pub type Outputs = Vec<(Output, Vec<Vec<f64>>)>;

/// Something that answers problems: the library, or in tests something that is wrong.
pub trait Layers {
    /// The ways to merge that it has.
    fn merges(&self) -> &'static [Merge];
    /// Forward in training, then backward, by a new layer.
    fn run(&self, merge: Merge, problem: &Problem) -> Result<Outputs, Box<dyn Error>>;
}

/// The library, with all ranks on one device.
pub struct OnDevice(pub Device);

impl Layers for OnDevice {
    fn merges(&self) -> &'static [Merge] {
        if self.0.is_host() { &[Merge::Host] } else { &[Merge::Host, Merge::Device] }
    }

    fn run(&self, merge: Merge, problem: &Problem) -> Result<Outputs, Box<dyn Error>> {
        let tensors = |of: &dyn Fn(&Shard) -> &[f32]| -> Result<Vec<Tensor>, syncbn::Error> {
            problem
                .ranks
                .iter()
                .map(|shard| upload(&self.0, problem, shard.dims, of(shard)))
                .collect()
        };
        let x = tensors(&|shard| &shard.x)?;
        let grad_outputs = tensors(&|shard| &shard.grad_output)?;
        let adds = problem.epilogue.adds_residual();
        let residuals = adds
            .then(|| tensors(&|shard| shard.residual.as_deref().unwrap_or_default()))
            .transpose()?;
        let mut request = Forward::of(&x);
        let mut backward = Backward::of(&x, &grad_outputs);
        if let Some(residuals) = &residuals {
            (request, backward) = (request.residual(residuals), backward.residual(residuals));
        }
        let config = BatchNormConfig::torch(problem.channels()).with_eps(problem.eps);
        let config = config
            .with_residual(problem.epilogue.residual)
            .with_activation(problem.epilogue.activation);
        let weight = Some(&problem.weight[..]);
        let bias = Some(&problem.bias[..]);
        let (y, gradients) = match merge {
            Merge::Host => {
                let mut layer =
                    SyncBatchNorm::new(config, vec![self.0.clone(); problem.ranks.len()])?;
                layer.set_parameters(weight, bias)?;
                let forward = block_on(layer.forward_train(request))?;
                (forward.output, block_on(layer.backward(&forward.saved, backward))?)
            }
            Merge::Device => {
                let mut layer = BatchNorm::new(config, &self.0)?;
                layer.set_parameters(weight, bias)?;
                let forward = layer.forward_train(request)?;
                (forward.output, layer.backward(&forward.saved, backward)?)
            }
        };
        let outputs = [
            (Output::Y, Some(y)),
            (Output::GradInput, Some(gradients.input)),
            (Output::GradResidual, gradients.residual),
            (Output::GradWeight, gradients.weight),
            (Output::GradBias, gradients.bias),
        ];
        let present = outputs.into_iter().filter_map(|(output, tensors)| Some((output, tensors?)));
        present.map(|(output, tensors)| Ok((output, read(problem, output, &tensors)?))).collect()
    }
}

fn upload(
    device: &Device,
    problem: &Problem,
    dims: [usize; 3],
    values: &[f32],
) -> Result<Tensor, syncbn::Error> {
    let values = stored(values, dims, problem.layout);
    let dims = stored_dims(&dims, problem.layout);
    let tensor = match problem.dtype {
        DType::F32 => device.upload(&dims, &values),
        DType::F16 => device.upload(&dims, &converted::<f16>(&values)),
        DType::BF16 => device.upload(&dims, &converted::<bf16>(&values)),
    };
    Ok(tensor?.with_layout(problem.layout))
}

fn converted<T: Element>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&value| T::from_f32(value)).collect()
}

fn read(
    problem: &Problem,
    output: Output,
    tensors: &[Tensor],
) -> Result<Vec<Vec<f64>>, syncbn::Error> {
    let of_rank = |(tensor, shard): (&Tensor, &Shard)| {
        let values: Vec<f64> = block_on(tensor.to_vec())?.into_iter().map(f64::from).collect();
        let is_vector = output.is_vector();
        Ok(if is_vector { values } else { channels_first(&values, shard.dims, problem.layout) })
    };
    tensors.iter().zip(&problem.ranks).map(of_rank).collect()
}
