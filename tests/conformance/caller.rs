//! Owns what both drivers of the library have in common: a caller that drives some ranks of a process group, all of them
//! (`DeviceGroup`) or one (`SyncBatchNorm`).

use std::slice::from_ref;

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{Backward, Device, DeviceGroup, Error, Forward, Input, Inputs, SavedForward, SyncBatchNorm, Tensor};

/// What a call takes: x of each driven rank, and its residual where one is added.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub x: &'a [Tensor],
    pub residuals: Option<&'a [Tensor]>,
}

impl<'a> Given<'a> {
    fn lists(self) -> Inputs<'a> {
        self.residuals.map_or(self.x.into(), |residuals| Inputs::with_residuals(self.x, residuals))
    }

    /// Of the only rank.
    fn single(self) -> Input<'a> {
        let x = &self.x[0];
        self.residuals.map_or(x.into(), |residuals| Input::with_residual(x, &residuals[0]))
    }
}

/// Drives ranks of a process group. Lists have one tensor for each of them.
pub trait Caller {
    fn devices(&self) -> &[Device];

    fn set_parameters(&mut self, weight: Option<&[f32]>, bias: Option<&[f32]>) -> Result<(), Error>;

    fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error>;

    fn running_stats(&self) -> Option<&RunningStats>;

    fn forward(&mut self, train: bool, given: Given<'_>) -> Result<Forward, Error>;

    fn backward(&self, saved: &SavedForward, given: Given<'_>, grad_outputs: &[Tensor]) -> Result<Backward, Error>;
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

    fn forward(&mut self, train: bool, given: Given<'_>) -> Result<Forward, Error> {
        let inputs = given.lists();
        block_on(async { if train { self.forward_train(inputs).await } else { self.forward_eval(inputs).await } })
    }

    fn backward(&self, saved: &SavedForward, given: Given<'_>, grad_outputs: &[Tensor]) -> Result<Backward, Error> {
        block_on(self.backward(saved, given.lists(), grad_outputs))
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

    fn forward(&mut self, train: bool, given: Given<'_>) -> Result<Forward, Error> {
        let input = given.single();
        let forward =
            block_on(async { if train { self.forward_train(input).await } else { self.forward_eval(input).await } })?;
        Ok(Forward { outputs: vec![forward.output], saved: forward.saved, report: forward.report })
    }

    fn backward(&self, saved: &SavedForward, given: Given<'_>, grad_outputs: &[Tensor]) -> Result<Backward, Error> {
        let backward = block_on(self.backward(saved, given.single(), &grad_outputs[0]))?;
        Ok(Backward {
            grad_inputs: vec![backward.grad_input],
            grad_weights: backward.grad_weight.map(|gradient| vec![gradient]),
            grad_biases: backward.grad_bias.map(|gradient| vec![gradient]),
            grad_residuals: backward.grad_residual.map(|gradient| vec![gradient]),
            report: backward.report,
        })
    }
}
