//! Owns what all drivers of the library have in common: a caller that drives some ranks of a
//! process group, all of them or one, in whole passes or step by step.

use pollster::block_on;
use syncbn::stats::{LocalStatistics, RunningStats};
use syncbn::tensor::{Output, Ranks};
use syncbn::{
    Backward, Device, DoubleGradients, Error, Forward, Gradients, Saved, SyncBatchNorm, Tensor,
};

use crate::double;

/// What a call takes: x of each driven rank, and its residual where one is added.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub x: &'a [Tensor],
    pub residuals: Option<&'a [Tensor]>,
    /// Of padded samples.
    pub lengths: Option<&'a [Vec<u32>]>,
}

/// What a forward call gave: y of each driven rank, its own statistics, and what backward needs.
pub struct Passed {
    pub outputs: Vec<Tensor>,
    pub local: LocalStatistics,
    pub saved: Saved,
    pub by_hand: bool,
}

/// Gradients of each driven rank.
pub struct Differentiated {
    pub inputs: Vec<Tensor>,
    pub weights: Option<Vec<Tensor>>,
    pub biases: Option<Vec<Tensor>>,
    pub residuals: Option<Vec<Tensor>>,
}

/// Drives ranks of a process group. Lists have one tensor for each of them.
pub trait Caller {
    fn devices(&self) -> Vec<Device>;

    fn set_parameters(&mut self, weight: Option<&[f32]>, bias: Option<&[f32]>)
    -> Result<(), Error>;

    fn set_running_stats(&mut self, running: RunningStats) -> Result<(), Error>;

    fn running_stats(&self) -> Result<Option<RunningStats>, Error>;

    fn forward(&self, train: bool, given: Given<'_>) -> Result<Passed, Error>;

    fn backward(
        &self,
        passed: &Passed,
        given: Given<'_>,
        grad_outputs: &[Tensor],
    ) -> Result<Differentiated, Error>;

    fn double_backward(
        &self,
        passed: &Passed,
        given: Given<'_>,
        grad_outputs: &[Tensor],
        cotangents: &double::Tensors,
    ) -> Result<DoubleGradients<Vec<Tensor>>, Error>;
}

/// A layer that reads statistics back.
pub struct Synchronized {
    pub layer: SyncBatchNorm,
    /// Takes the three steps of training with the batch, and those of its backward, one at a time.
    pub by_hand: bool,
}

impl Caller for Synchronized {
    fn devices(&self) -> Vec<Device> {
        self.layer.devices().to_vec()
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
        Ok(self.layer.running_stats())
    }

    fn forward(&self, train: bool, given: Given<'_>) -> Result<Passed, Error> {
        if self.by_hand && train && self.layer.config().use_batch_statistics != Some(false) {
            return block_on(self.forward_by_hand(given));
        }
        match (given.x, given.residuals) {
            // A rank alone is given as what it is, not as a list of one.
            ([x], residuals) => {
                let request = added(Forward::of(x), residuals.map(|residuals| &residuals[0]));
                block_on(self.pass(train, padded(request, given.lengths), |y| vec![y]))
            }
            (x, residuals) => {
                let request = padded(added(Forward::of(x), residuals), given.lengths);
                block_on(self.pass(train, request, |y| y))
            }
        }
    }

    fn backward(
        &self,
        passed: &Passed,
        given: Given<'_>,
        grad_outputs: &[Tensor],
    ) -> Result<Differentiated, Error> {
        let layer = &self.layer;
        let saved = &passed.saved;
        match (given.x, grad_outputs) {
            _ if passed.by_hand => block_on(self.backward_by_hand(saved, given, grad_outputs)),
            ([x], [grad_output]) => {
                let request = read_again(
                    Backward::of(x, grad_output),
                    given.residuals.map(|residuals| &residuals[0]),
                );
                Ok(lists(block_on(layer.backward(saved, request))?, |gradient| vec![gradient]))
            }
            (x, grad_outputs) => {
                let request = read_again(Backward::of(x, grad_outputs), given.residuals);
                Ok(lists(block_on(layer.backward(saved, request))?, |gradients| gradients))
            }
        }
    }

    fn double_backward(
        &self,
        passed: &Passed,
        given: Given<'_>,
        grad_outputs: &[Tensor],
        cotangents: &double::Tensors,
    ) -> Result<DoubleGradients<Vec<Tensor>>, Error> {
        let request = double::request(given, grad_outputs, cotangents);
        block_on(self.layer.double_backward(&passed.saved, request))
    }
}

impl Synchronized {
    async fn pass<O: Output>(
        &self,
        train: bool,
        request: Forward<'_, O>,
        list: impl FnOnce(O) -> Vec<Tensor>,
    ) -> Result<Passed, Error> {
        let layer = &self.layer;
        let done = if train {
            layer.forward_train(request).await?
        } else {
            layer.forward_eval(request).await?
        };
        let local = done.saved.report().map(|report| report.local.clone());
        let local = local.unwrap_or_else(|| LocalStatistics::empty(layer.config().num_features));
        Ok(Passed { outputs: list(done.output), local, saved: done.saved, by_hand: false })
    }

    async fn forward_by_hand(&self, given: Given<'_>) -> Result<Passed, Error> {
        let local =
            self.layer.local_statistics(padded(Forward::of(given.x), given.lengths)).await?;
        let global = self.layer.synchronize(local.clone()).await?;
        let request = padded(added(Forward::of(given.x), given.residuals), given.lengths);
        let done = self.layer.normalize(request, &global).await?;
        Ok(Passed { outputs: done.output, local, saved: done.saved, by_hand: true })
    }

    async fn backward_by_hand(
        &self,
        saved: &Saved,
        given: Given<'_>,
        grad_outputs: &[Tensor],
    ) -> Result<Differentiated, Error> {
        let layer = &self.layer;
        let config = self.layer.config();
        let targets = |exists: bool| {
            let zeros = || {
                layer.devices().iter().map(|device| device.zeros(&[config.num_features])).collect()
            };
            (exists && !config.freeze_affine).then(zeros).transpose()
        };
        let mut weights: Option<Vec<Tensor>> = targets(config.weight)?;
        let mut biases: Option<Vec<Tensor>> = targets(config.bias)?;
        let request = || read_again(Backward::of(given.x, grad_outputs), given.residuals);
        let sums = request().weight_gradient(weights.as_mut()).bias_gradient(biases.as_mut());
        let local = layer.local_gradient_sums(saved, sums).await?;
        let global = layer.synchronize(local).await?;
        let gradients = layer.input_gradients(saved, request(), &global).await?;
        Ok(Differentiated { weights, biases, ..lists(gradients, |gradients| gradients) })
    }
}

/// A forward request with the residual that there may be.
pub fn added<'a, O: Output>(
    request: Forward<'a, O>,
    residual: Option<impl Ranks<'a>>,
) -> Forward<'a, O> {
    match residual {
        Some(residual) => request.residual(residual),
        None => request,
    }
}

/// A forward request with the lengths that there may be.
pub fn padded<'a, O: Output>(
    request: Forward<'a, O>,
    lengths: Option<&[Vec<u32>]>,
) -> Forward<'a, O> {
    match lengths {
        Some(lengths) => request.lengths(lengths),
        None => request,
    }
}

/// A backward request with the residual that it may need.
pub fn read_again<'a, O: Output>(
    request: Backward<'a, O>,
    residual: Option<impl Ranks<'a>>,
) -> Backward<'a, O> {
    match residual {
        Some(residual) => request.residual(residual),
        None => request,
    }
}

/// Gradients as lists.
pub fn lists<O>(gradients: Gradients<O>, list: impl Fn(O) -> Vec<Tensor>) -> Differentiated {
    Differentiated {
        inputs: list(gradients.input),
        weights: gradients.weight.map(&list),
        biases: gradients.bias.map(&list),
        residuals: gradients.residual.map(&list),
    }
}
