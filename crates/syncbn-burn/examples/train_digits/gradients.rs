//! Averaging gradients over ranks: flat on the device, through the host, and back, each way in one transfer.

use std::time::Duration;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor, TensorData};
use pollster::block_on;
use syncbn::collective::{Collective, LocalRank};

use super::Failure;

/// How long a rank waits for the others.
const DEADLINE: Duration = Duration::from_secs(60);

/// The mean over ranks of the gradients of a module, and of the loss.
pub fn average<M: Module>(
    module: &M,
    gradients: Gradients,
    loss: Tensor<1>,
    ranks: &LocalRank,
) -> Result<(GradientsParams, f32), Failure> {
    let mut flat = Flatten { gradients: &gradients, parts: vec![loss.without_autodiff()] };
    module.visit(&mut flat);
    let own = Tensor::cat(flat.parts, 0);
    let (device, message) = (own.device(), own.into_data().try_to_vec::<f32>()?);
    let message = message.into_iter().flat_map(f32::to_le_bytes).collect();
    let gathered = block_on(ranks.all_gather(message, DEADLINE))?;

    // In rank order, so that all ranks get the same bits.
    let mut sum = vec![0.0f64; gathered[0].len() / 4];
    for message in &gathered {
        let (values, _) = message.as_chunks::<4>();
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += f64::from(f32::from_le_bytes(*value));
        }
    }
    let mean: Vec<f32> = sum.iter().map(|sum| (sum / gathered.len() as f64) as f32).collect();
    let loss = mean[0];
    let count = mean.len();
    let mean = Tensor::from_data(TensorData::new(mean, [count]), &device);
    let mut split = Split { gradients: &gradients, mean, at: 1, params: GradientsParams::new() };
    module.visit(&mut split);
    Ok((split.params, loss))
}

struct Flatten<'a> {
    gradients: &'a Gradients,
    parts: Vec<Tensor<1>>,
}

impl ModuleVisitor for Flatten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Running statistics are visited too, and have none.
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.parts.push(gradient.flatten(0, D - 1));
        }
    }
}

struct Split<'a> {
    gradients: &'a Gradients,
    mean: Tensor<1>,
    at: usize,
    params: GradientsParams,
}

impl ModuleVisitor for Split<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            let shape = gradient.shape();
            let end = self.at + shape.num_elements();
            self.params.register::<D>(param.id, self.mean.clone().slice(self.at..end).reshape(shape));
            self.at = end;
        }
    }
}
