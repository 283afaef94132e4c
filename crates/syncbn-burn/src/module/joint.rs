//! Several ranks on one device, in one call.

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

use super::call::Computed;
use super::{BatchNorm, raise};
use crate::error::Error;
use crate::operation::{BatchNormOps, Done, Joint, Node, Slot};

impl BatchNorm {
    /// Normalizes several tensors of one device with the mean and variance of all of them: the
    /// ranks, or the parts of a batch, that one device has. Their sizes may differ in all but C.
    ///
    /// A pass is one submission and nothing is read back. Outputs, gradients and running statistics
    /// are those of the tensors put together along N, without the copies. Outputs need not all
    /// reach the loss.
    ///
    /// ```no_run
    /// # use burn::tensor::{Device, Tensor};
    /// # use syncbn_burn::BatchNormConfig;
    /// # fn example(device: Device, large: Tensor<4>, small: Tensor<4>) {
    /// let norm = BatchNormConfig::new(16).init(&device);
    /// // (8, 16, 32, 32) and (4, 16, 24, 24).
    /// let y = norm.forward_all(vec![large, small]);
    /// # }
    /// ```
    ///
    /// # Panics
    /// With the message of the error where [`try_forward_all`](Self::try_forward_all) returns one.
    pub fn forward_all<const D: usize>(&self, inputs: Vec<Tensor<D>>) -> Vec<Tensor<D>> {
        self.try_forward_all(inputs).unwrap_or_else(|error| raise(error))
    }

    /// [`forward_all`](Self::forward_all) with a residual for each tensor, added before the
    /// activation as [`forward_add`](Self::forward_add) does.
    ///
    /// # Panics
    /// With the message of the error where [`try_forward_add_all`](Self::try_forward_add_all)
    /// returns one.
    pub fn forward_add_all<const D: usize>(
        &self,
        inputs: Vec<Tensor<D>>,
        residuals: Vec<Tensor<D>>,
    ) -> Vec<Tensor<D>> {
        self.try_forward_add_all(inputs, residuals).unwrap_or_else(|error| raise(error))
    }

    /// [`forward_all`](Self::forward_all) with failures as values.
    ///
    /// # Errors
    /// As [`try_forward`](Self::try_forward), and [`Error::Device`] for tensors of several devices.
    pub fn try_forward_all<const D: usize>(
        &self,
        inputs: Vec<Tensor<D>>,
    ) -> Result<Vec<Tensor<D>>, Error> {
        self.call_all(inputs, None)
    }

    /// [`forward_add_all`](Self::forward_add_all) with failures as values.
    ///
    /// # Errors
    /// As [`try_forward_add`](Self::try_forward_add) and
    /// [`try_forward_all`](Self::try_forward_all), and [`Error::Setting`] for another number of
    /// residuals than of inputs.
    pub fn try_forward_add_all<const D: usize>(
        &self,
        inputs: Vec<Tensor<D>>,
        residuals: Vec<Tensor<D>>,
    ) -> Result<Vec<Tensor<D>>, Error> {
        if residuals.len() != inputs.len() {
            let name = "number of residuals";
            let allowed = "the number of inputs";
            return Err(Error::Setting { name, found: residuals.len() as f64, allowed });
        }
        self.call_all(inputs, Some(residuals))
    }

    fn call_all<const D: usize>(
        &self,
        inputs: Vec<Tensor<D>>,
        residuals: Option<Vec<Tensor<D>>>,
    ) -> Result<Vec<Tensor<D>>, Error> {
        let Some(device) = inputs.first().map(Tensor::device) else { return Ok(inputs) };
        if let Some(other) = inputs.iter().map(Tensor::device).find(|other| *other != device) {
            let message = format!("a call takes tensors of one: found {device:?} and {other:?}");
            return Err(Error::Device { message });
        }
        if !(device.is_autodiff() && self.training.is_enabled()) {
            let mut residuals = residuals.into_iter().flatten();
            return inputs.into_iter().map(|input| self.call(input, residuals.next())).collect();
        }
        let computed = self.compute(&inputs, residuals.as_deref(), false, true)?;
        Ok(connect(inputs, residuals.unwrap_or_default(), computed))
    }
}

/// Gives the outputs of a call their places in Burn's graph.
fn connect<const D: usize>(
    inputs: Vec<Tensor<D>>,
    residuals: Vec<Tensor<D>>,
    computed: Computed,
) -> Vec<Tensor<D>> {
    let Computed { y, saved, gamma, beta } = computed;
    let joint = Arc::new(Joint::new(saved, inputs.len()));
    let mut parents =
        vec![(gamma.into_dispatch(), Slot::Weight), (beta.into_dispatch(), Slot::Bias)];
    for (tensors, slot) in [(inputs, Slot::X as fn(usize) -> Slot), (residuals, Slot::Residual)] {
        let tensors = tensors.into_iter().map(Tensor::into_dispatch).enumerate();
        parents.extend(tensors.map(|(rank, tensor)| (tensor, slot(rank))));
    }
    let mut parents = parents.into_iter().peekable();
    let mut link: Option<FloatTensor<Dispatch>> = None;
    // Nobody reads what a link is.
    let Some(any) = y.first().cloned() else { return Vec::new() };
    while parents.peek().is_some() {
        let before = link.take().map(|link| (link, Slot::Other));
        let mut taken = before.into_iter().chain(parents.by_ref()).take(4);
        let Some((a, first)) = taken.next() else { break };
        let mut next = || taken.next().unwrap_or_else(|| (a.clone(), Slot::Other));
        let [(b, second), (c, third), (d, fourth)] = [next(), next(), next()];
        let node = Node::Link { joint: joint.clone(), slots: [first, second, third, fourth] };
        let done = Done::at(any.clone(), node);
        link = Some(<Dispatch as BatchNormOps>::batch_norm_output(a, b, c, d, done));
    }
    let Some(link) = link else { return Vec::new() };
    let output = |(rank, y)| {
        let [a, b, c, d] = [&link; 4].map(Clone::clone);
        let done = Done::at(y, Node::Joint { joint: joint.clone(), rank });
        Tensor::from_dispatch(<Dispatch as BatchNormOps>::batch_norm_output(a, b, c, d, done))
    };
    y.into_iter().enumerate().map(output).collect()
}
