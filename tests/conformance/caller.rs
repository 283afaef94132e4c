//! Owns what both drivers of the library have in common: a caller that drives some ranks of a process group, all of them
//! (`DeviceGroup`) or one (`SyncBatchNorm`).

use std::slice::from_ref;

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{Backward, Device, DeviceGroup, Error, Forward, SavedForward, SyncBatchNorm, Tensor};

/// Drives ranks of a process group. Lists have one tensor for each of them.
pub trait Caller {
    fn devices(&self) -> &[Device];

    fn set_parameters(&mut self, weight: Option<&[f32]>, bias: Option<&[f32]>) -> Result<(), Error>;

    fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error>;

    fn running_stats(&self) -> Option<&RunningStats>;

    fn forward(&mut self, train: bool, inputs: &[Tensor]) -> Result<Forward, Error>;

    fn backward(&self, saved: &SavedForward, inputs: &[Tensor], grad_outputs: &[Tensor]) -> Result<Backward, Error>;
}

impl Caller for DeviceGroup {
    fn devices(&self) -> &[Device] {
        self.devices()
    }

    fn set_parameters(&mut self, weight: Option<&[f32]>, bias: Option<&[f32]>) -> Result<(), Error> {
        self.set_parameters(weight, bias)
    }

    fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error> {
        self.set_running_stats(running)
    }

    fn running_stats(&self) -> Option<&RunningStats> {
        self.running_stats()
    }

    fn forward(&mut self, train: bool, inputs: &[Tensor]) -> Result<Forward, Error> {
        block_on(async { if train { self.forward_train(inputs).await } else { self.forward_eval(inputs).await } })
    }

    fn backward(&self, saved: &SavedForward, inputs: &[Tensor], grad_outputs: &[Tensor]) -> Result<Backward, Error> {
        block_on(self.backward(saved, inputs, grad_outputs))
    }
}

/// Lists of one tensor.
impl Caller for SyncBatchNorm {
    fn devices(&self) -> &[Device] {
        from_ref(self.device())
    }

    fn set_parameters(&mut self, weight: Option<&[f32]>, bias: Option<&[f32]>) -> Result<(), Error> {
        self.set_parameters(weight, bias)
    }

    fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error> {
        self.set_running_stats(running)
    }

    fn running_stats(&self) -> Option<&RunningStats> {
        self.running_stats()
    }

    fn forward(&mut self, train: bool, inputs: &[Tensor]) -> Result<Forward, Error> {
        let x = &inputs[0];
        let forward = block_on(async { if train { self.forward_train(x).await } else { self.forward_eval(x).await } })?;
        Ok(Forward { outputs: vec![forward.output], saved: forward.saved, report: forward.report })
    }

    fn backward(&self, saved: &SavedForward, inputs: &[Tensor], grad_outputs: &[Tensor]) -> Result<Backward, Error> {
        let backward = block_on(self.backward(saved, &inputs[0], &grad_outputs[0]))?;
        Ok(Backward {
            grad_inputs: vec![backward.grad_input],
            grad_weights: backward.grad_weight.map(|gradient| vec![gradient]),
            grad_biases: backward.grad_bias.map(|gradient| vec![gradient]),
            report: backward.report,
        })
    }
}
