//! Gradients of all ranks: flat on the device, through the host, and back, each way in one
//! transfer.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor, TensorData};
use pollster::block_on;
use syncbn::ProcessGroup;

use crate::error::Error;

/// Replaces the gradients of a module's parameters by their mean over the ranks of a group, and
/// returns the mean of the loss. Of a group of one nothing moves.
///
/// The mean is that of the whole batch where every rank's loss is the mean of as many samples. Of
/// uneven ranks it is where each divides the sum of its losses by the samples of all, and
/// [`sum_gradients`] adds them up.
///
/// Which parameters have a gradient must be the same on every rank.
///
/// # Errors
/// [`Error::Setting`] for a loss of another number of elements than one; [`Error::Layer`] with what
/// the exchange reports; [`Error::Runtime`] when the device does not deliver. Nothing is replaced
/// then, and the other ranks are notified.
pub fn average_gradients<M: Module>(
    module: &M,
    gradients: &mut Gradients,
    loss: Tensor<1>,
    group: &ProcessGroup,
) -> Result<Tensor<1>, Error> {
    reduce(module, gradients, loss, group, 1.0 / group.world_size() as f32)
}

/// As [`average_gradients`], the sum.
///
/// # Errors
/// As there.
pub fn sum_gradients<M: Module>(
    module: &M,
    gradients: &mut Gradients,
    loss: Tensor<1>,
    group: &ProcessGroup,
) -> Result<Tensor<1>, Error> {
    reduce(module, gradients, loss, group, 1.0)
}

fn reduce<M: Module>(
    module: &M,
    gradients: &mut Gradients,
    loss: Tensor<1>,
    group: &ProcessGroup,
    factor: f32,
) -> Result<Tensor<1>, Error> {
    let loss = loss.without_autodiff();
    let [found] = loss.dims();
    if found != 1 {
        let name = "elements of the loss";
        let error = Error::Setting { name, found: found as f64, allowed: "1" };
        group.abort(&error.to_string());
        return Err(error);
    }
    if group.world_size() == 1 {
        return Ok(loss);
    }
    let mut flat = Flatten { gradients, parts: vec![loss.cast(DType::F32)] };
    module.visit(&mut flat);
    let own = Tensor::cat(flat.parts, 0);
    let device = own.device();
    let runtime = |message| Error::Runtime { argument: "the gradients", message };
    let data = own.try_into_data().map_err(|error| runtime(error.to_string()));
    let values =
        data.and_then(|data| data.try_to_vec::<f32>().map_err(|error| runtime(error.to_string())));
    let mut values = values.inspect_err(|error| group.abort(&error.to_string()))?;
    block_on(group.all_reduce_sum([&mut values]))?;
    values.iter_mut().for_each(|value| *value *= factor);
    let count = values.len();
    let reduced = Tensor::from_data(TensorData::new(values, [count]), &device);
    module.visit(&mut Replace { gradients, reduced: reduced.clone(), at: 1 });
    Ok(reduced.slice(0..1))
}

/// Collects gradients in the order of the parameters.
struct Flatten<'a> {
    gradients: &'a Gradients,
    parts: Vec<Tensor<1>>,
}

impl ModuleVisitor for Flatten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Running statistics are visited too, and have none.
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.parts.push(gradient.flatten(0, D - 1).cast(DType::F32));
        }
    }
}

/// Puts them back.
struct Replace<'a> {
    gradients: &'a mut Gradients,
    reduced: Tensor<1>,
    at: usize,
}

impl ModuleVisitor for Replace<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let parameter = param.val();
        let Some(gradient) = parameter.grad(self.gradients) else { return };
        let shape = gradient.shape();
        let end = self.at + shape.num_elements();
        let part = self.reduced.clone().slice(self.at..end).reshape(shape);
        parameter.grad_replace(self.gradients, part.cast(gradient.dtype()));
        self.at = end;
    }
}
