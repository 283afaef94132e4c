//! A problem on a layer of one GPU: evaluation and training, forward and backward.

use syncbn::{BatchNorm, BatchNormConfig, Device, Error, SyncBatchNorm, Tensor};

use super::problem::{Pass, Problem, Tensors, Uses};
use crate::batch::Batch;
use crate::storage::{Layouts, Types, zeros_as};

/// The layer of a problem.
pub fn layer(problem: &Problem, device: &Device) -> BatchNorm {
    let mut layer = BatchNorm::new(problem.config.clone(), device).expect("a valid layer");
    layer.set_parameters(problem.weight(), problem.bias()).expect("parameters of the right length");
    layer.set_running_stats(problem.running.clone()).expect("statistics of the right length");
    layer
}

/// The tensors of a call in these layouts.
pub fn tensors(problem: &Problem, device: &Device, layouts: Layouts) -> Tensors {
    problem.tensors_as(&vec![device.clone(); problem.x.len()], &[layouts])
}

/// Evaluation, then training, with the same tensors.
pub fn passes(
    problem: &Problem,
    device: &Device,
    layouts: Layouts,
) -> Result<[(Uses, Pass); 2], Error> {
    let layer = layer(problem, device);
    let tensors = tensors(problem, device, layouts);
    let room = |(batch, types): (&Batch, &Types)| zeros_as(device, batch, types.other, layouts.x);
    let mut outputs: Vec<Tensor> = problem.x.iter().zip(&problem.types).map(room).collect();
    let mut pass = |uses: Uses| {
        let request = tensors.forward().write_to(&mut outputs);
        let saved = match uses {
            Uses::Running => layer.forward_eval(request),
            Uses::Group => layer.forward_train(request),
        }?
        .saved;
        assert!(
            !saved.needs_residual() || problem.config.residual && problem.epilogue().activates()
        );
        let needed =
            if saved.needs_residual() { tensors.backward() } else { tensors.backward_without() };
        let backward = layer.backward(&saved, needed)?;
        for (gradient, x) in backward.input.iter().zip(&tensors.x) {
            assert_eq!((gradient.dtype(), gradient.layout()), (x.dtype(), x.layout()));
        }
        Ok::<_, Error>((uses, problem.pass(problem.read(&outputs), &backward)))
    };
    Ok([pass(Uses::Running)?, pass(Uses::Group)?])
}

/// The same on a layer that merges on the host.
pub fn passes_on_host(problem: &Problem, device: &Device, layouts: Layouts) -> [(Uses, Pass); 2] {
    problem.run(vec![device.clone(); problem.x.len()], &[layouts]).unwrap()
}

/// A layer that merges on the host, of so many ranks on this device.
pub fn on_host(config: &BatchNormConfig, device: &Device, ranks: usize) -> SyncBatchNorm {
    SyncBatchNorm::new(config.clone(), vec![device.clone(); ranks]).unwrap()
}
