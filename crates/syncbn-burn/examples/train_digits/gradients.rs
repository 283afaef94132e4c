//! Averaging gradients over ranks: flat on the device, through the host, and back, each way in one
//! transfer.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor, TensorData};
use pollster::block_on;
use syncbn::ProcessGroup;

use super::Failure;

/// The mean over ranks of the gradients of a module, and of the loss.
pub fn average<M: Module>(
    module: &M,
    gradients: Gradients,
    loss: Tensor<1>,
    group: &ProcessGroup,
) -> Result<(GradientsParams, f32), Failure> {
    let mut flat = Flatten { gradients: &gradients, parts: vec![loss.without_autodiff()] };
    module.visit(&mut flat);
    let own = Tensor::cat(flat.parts, 0);
    let (device, mut values) = (own.device(), own.into_data().try_to_vec::<f32>()?);
    block_on(group.all_reduce_sum([&mut values]))?;
    values.iter_mut().for_each(|value| *value /= group.world_size() as f32);

    let (loss, count) = (values[0], values.len());
    let mean = Tensor::from_data(TensorData::new(values, [count]), &device);
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
            self.params
                .register::<D>(param.id, self.mean.clone().slice(self.at..end).reshape(shape));
            self.at = end;
        }
    }
}
