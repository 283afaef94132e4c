//! A problem on a resident layer: evaluation and training, forward and backward.

use syncbn::{Device, DeviceGroup, Epilogue, Error, Inputs, ResidentBackward, ResidentGroup, Tensor};

use super::common::*;
use super::problem::{Pass, Problem, Tensors, Uses};
use super::stored::*;

/// The layer of a problem, all ranks on this device.
pub fn layer(problem: &Problem, device: &Device) -> ResidentGroup {
    let mut layer = ResidentGroup::new(problem.config.clone(), device.clone(), problem.x.len()).expect("a valid layer");
    layer.set_parameters(problem.weight(), problem.bias()).expect("parameters of the right length");
    layer.set_running_stats(&problem.running).expect("statistics of the right length");
    layer
}

/// The tensors of a call in these layouts.
pub fn tensors(problem: &Problem, device: &Device, layouts: Layouts) -> Tensors {
    let ranks = || problem.types.iter();
    let as_x = |batches: &Vec<Batch>| -> Vec<Tensor> {
        ranks().zip(batches).map(|(types, batch)| upload_as(device, batch, types.x, layouts.x)).collect()
    };
    let g = ranks().zip(&problem.g).map(|(types, batch)| upload_as(device, batch, types.other, layouts.g));
    Tensors { x: as_x(&problem.x), residuals: problem.residuals.as_ref().map(as_x), g: g.collect() }
}

/// Evaluation, then training, with the same tensors.
pub fn passes(problem: &Problem, device: &Device, layouts: Layouts) -> Result<[(Uses, Pass); 2], Error> {
    let mut layer = layer(problem, device);
    let tensors = tensors(problem, device, layouts);
    let room = |(batch, types): (&Batch, &Types)| zeros_as(device, batch, types.other, layouts.x);
    let mut outputs: Vec<Tensor> = problem.x.iter().zip(&problem.types).map(room).collect();
    let mut pass = |uses: Uses| {
        let inputs = tensors.inputs();
        let saved = match uses {
            Uses::Running => layer.forward_eval_into(inputs, &mut outputs),
            Uses::Group => layer.forward_train_into(inputs, &mut outputs),
        }?;
        assert!(!saved.needs_residuals() || problem.epilogue() == Epilogue::AddRelu);
        let needed: Inputs<'_> = if saved.needs_residuals() { inputs } else { (&tensors.x).into() };
        let backward = layer.backward(&saved, needed, &tensors.g)?;
        for (gradient, x) in backward.grad_inputs.iter().zip(&tensors.x) {
            assert_eq!((gradient.dtype(), gradient.layout()), (x.dtype(), x.layout()));
        }
        Ok::<_, Error>((uses, read_pass(problem, &outputs, &backward)))
    };
    Ok([pass(Uses::Running)?, pass(Uses::Group)?])
}

pub fn read_pass(problem: &Problem, outputs: &[Tensor], backward: &ResidentBackward) -> Pass {
    let grad_weights = backward.grad_weights.as_deref().map(read);
    let grad_biases = backward.grad_biases.as_deref().map(read);
    let grad_residuals = backward.grad_residuals.as_deref().map(|gradients| problem.read(gradients));
    assert_eq!((grad_weights.is_some(), grad_biases.is_some()), (problem.config.weight, problem.config.bias));
    assert_eq!(grad_residuals.is_some(), problem.epilogue().adds_residual());
    let (y, grad_inputs) = (problem.read(outputs), problem.read(&backward.grad_inputs));
    Pass { y, grad_inputs, grad_residuals, grad_weights, grad_biases }
}

/// The same on a group that merges on the host.
pub fn passes_of_group(problem: &Problem, device: &Device, layouts: Layouts) -> [(Uses, Pass); 2] {
    problem.run(vec![device.clone(); problem.x.len()], &[layouts]).unwrap()
}

/// A group that merges on the host, with one rank on this device for each of a resident layer.
pub fn group_of(config: &syncbn::SyncBatchNormConfig, device: &Device, ranks: usize) -> DeviceGroup {
    DeviceGroup::new(config.clone(), vec![device.clone(); ranks]).unwrap()
}
