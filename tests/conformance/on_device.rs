//! Owns what is special about a layer on one device: how it is called, and which checks are of what
//! it keeps.

use pollster::block_on;
use syncbn::stats::{LocalStatistics, RunningStats};
use syncbn::{Backward, BatchNorm, Device, DoubleGradients, Error, Forward, Tensor};

use crate::caller::{Caller, Differentiated, Given, Passed, added, lists, padded, read_again};
use crate::compare::Quantity;
use crate::double;
use crate::scenario::Group;

/// The most that y may be off on hard data, in ulp, as `BatchNorm` says of itself.
const BOUND: f64 = 16.0;

/// A layer on one device, for so many ranks.
pub struct OnDevice {
    pub layer: BatchNorm,
    pub ranks: usize,
}

impl Caller for OnDevice {
    fn devices(&self) -> Vec<Device> {
        vec![self.layer.device().clone(); self.ranks]
    }

    fn set_parameters(
        &mut self,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
    ) -> Result<(), Error> {
        self.layer.set_parameters(weight, bias)
    }

    fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error> {
        self.layer.set_running_stats(running)
    }

    fn running_stats(&self) -> Result<Option<RunningStats>, Error> {
        block_on(self.layer.running_stats())
    }

    fn forward(&self, train: bool, given: Given<'_>) -> Result<Passed, Error> {
        let request = padded(added(Forward::of(given.x), given.residuals), given.lengths);
        let done = if train {
            self.layer.forward_train(request)?
        } else {
            self.layer.forward_eval(request)?
        };
        let local = LocalStatistics::empty(self.layer.config().num_features);
        Ok(Passed { outputs: done.output, local, saved: done.saved, by_hand: false })
    }

    fn backward(
        &self,
        passed: &Passed,
        given: Given<'_>,
        grad_outputs: &[Tensor],
    ) -> Result<Differentiated, Error> {
        let request = read_again(Backward::of(given.x, grad_outputs), given.residuals);
        Ok(lists(self.layer.backward(&passed.saved, request)?, |gradients| gradients))
    }

    fn double_backward(
        &self,
        passed: &Passed,
        given: Given<'_>,
        grad_outputs: &[Tensor],
        cotangents: &double::Tensors,
    ) -> Result<DoubleGradients<Vec<Tensor>>, Error> {
        let request = double::request(given, grad_outputs, cotangents);
        self.layer.double_backward(&passed.saved, request)
    }
}

/// A case without the checks of what the layer keeps from everybody: counts, variances, and
/// statistics of each rank.
pub fn checked(case: &[Group]) -> Vec<Group> {
    let mut case = case.to_vec();
    for Group { scenario, .. } in &mut case {
        scenario.ulp_bound = scenario.ulp_bound.map(|_| BOUND);
        for step in &mut scenario.steps {
            step.count = None;
            step.checks.retain(|check| {
                !matches!(
                    check.quantity,
                    Quantity::VarBiased | Quantity::LocalMean(_) | Quantity::LocalVarBiased(_)
                )
            });
        }
    }
    case
}
