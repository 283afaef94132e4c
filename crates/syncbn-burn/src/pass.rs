//! The passes of a layer over Burn's primitive tensors, on the thread that calls.

use std::sync::{Arc, Weak};

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use pollster::block_on;
use syncbn::stats::GlobalStatistics;
use syncbn::{Backward, Forward, Tensor};

use crate::error::Error;
use crate::layer::{Layer, Norm, Way};
use crate::memory::{Lent, Pin, alike, fresh_like, in_place, lend};
use crate::rank::Shared;

/// The inputs of a forward call, of one rank or of several on one device.
pub(crate) struct Inputs {
    pub x: Vec<CubeTensor>,
    /// One for each x, or none at all.
    pub residual: Option<Vec<CubeTensor>>,
    /// Weight and bias, (C) f32 each.
    pub parameters: [CubeTensor; 2],
    /// Running mean and variance, (C) f32 each: those of evaluation, and of a layer on the device.
    pub running: Option<[CubeTensor; 2]>,
}

/// The outputs of a forward call.
pub(crate) struct Output {
    /// One for each x.
    pub y: Vec<CubeTensor>,
    pub saved: Saved,
    /// Running mean and variance after the batch, where they are made on the device.
    pub running: Option<[CubeTensor; 2]>,
}

/// The data of a forward call for backward. Activations and parameters stay in place until it is
/// dropped.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Not held: Burn keeps a graph that nobody differentiates until a later backward pass, and the
    /// rank would seem to be there all the while.
    layer: Weak<Layer>,
    rank: Weak<Shared>,
    way: Way,
    x: Vec<Kept>,
    residual: Option<Vec<Kept>>,
    parameters: [CubeTensor; 2],
    _pinned: [Pin; 2],
    forward: syncbn::Saved,
}

/// A tensor of Burn's, and as the layer knows it.
#[derive(Debug)]
struct Kept {
    tensor: CubeTensor,
    lent: Lent,
}

/// Which gradients are wanted beside those of the parameters.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub x: bool,
    pub residual: bool,
}

/// The gradients of a call; of x and residual one per rank, if they are wanted.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub x: Vec<CubeTensor>,
    pub residual: Vec<CubeTensor>,
    /// Of all ranks.
    pub weight: CubeTensor,
    pub bias: CubeTensor,
}

impl Layer {
    /// y with the statistics of the batch, or of running statistics where it `evaluates`, and what
    /// backward needs.
    pub fn forward(
        self: &Arc<Self>,
        rank: &Arc<Shared>,
        inputs: Inputs,
        way: Way,
        evaluates: bool,
    ) -> Result<Output, Error> {
        let Inputs { x, residual, parameters, running } = inputs;
        let (x, residual) = all_alike(x, residual);
        let parameters = parameters.map(in_place);
        let running = running.map(|running| running.map(in_place));
        let next =
            running.as_ref().filter(|_| !evaluates).map(|now| now.each_ref().map(fresh_like));
        let y: Vec<_> = x.iter().map(fresh_like).collect();
        let gpu = &self.gpu;
        let mut norm = self.norm(way)?;
        // From here to the submission nothing of this thread reaches Burn.
        let x = Kept::all("input", x, gpu)?;
        let residual = residual.map(|r| Kept::all("residual", r, gpu)).transpose()?;
        let mut outputs = lend_all("output", &y, gpu)?;
        let pinned = norm.set_parameters(&parameters, gpu)?;
        let now = lent("running statistics", running.as_ref(), gpu)?;
        let mut after = lent("running statistics", next.as_ref(), gpu)?;
        let mut request = Forward::of(Kept::tensors(&x));
        if let Some(residual) = &residual {
            request = request.residual(Kept::tensors(residual));
        }
        let mut request = request.write_to(written(&mut outputs));
        let forward = match &*norm {
            Norm::OnDevice(norm) => {
                if let Some([mean, var]) = &now {
                    request = request.running_stats(&mean.tensor, &var.tensor);
                }
                if let Some([mean, var]) = &mut after {
                    request = request.write_running_stats_to(&mut mean.tensor, &mut var.tensor);
                }
                if evaluates { norm.forward_eval(request)? } else { norm.forward_train(request)? }
            }
            Norm::OverRanks(norm) => block_on(norm.forward_train(request))?,
        };
        let running = next.filter(|_| matches!(*norm, Norm::OnDevice(_)));
        let saved = Saved {
            layer: Arc::downgrade(self),
            rank: Arc::downgrade(rank),
            way,
            x,
            residual,
            parameters,
            _pinned: pinned,
            forward: forward.saved,
        };
        Ok(Output { y, saved, running })
    }
}

impl Kept {
    fn all(
        argument: &'static str,
        tensors: Vec<CubeTensor>,
        gpu: &syncbn::Device,
    ) -> Result<Vec<Self>, Error> {
        let keep = |tensor| Ok(Self { lent: lend(argument, &tensor, gpu)?, tensor });
        tensors.into_iter().map(keep).collect()
    }

    fn tensors(kept: &[Self]) -> Vec<&Tensor> {
        kept.iter().map(|kept| &kept.lent.tensor).collect()
    }
}

impl Saved {
    /// The statistics of the group, where they came to the host.
    pub fn statistics(&self) -> Option<&GlobalStatistics> {
        self.forward.statistics()
    }

    /// The dimensions of every x.
    pub fn shapes(&self) -> impl Iterator<Item = Shape> {
        self.x.iter().map(|kept| kept.tensor.shape())
    }

    /// The gradients of the call, from those of y; those of weight and bias are f32, of the ranks
    /// of this call alone. Others are computed where they are wanted; the other ranks need this
    /// one's sums in any case.
    pub fn backward(&self, grad: Vec<CubeTensor>, wanted: Wanted) -> Result<Gradients, Error> {
        let layer = self.layer.upgrade().ok_or(Error::Gone);
        let gradients = layer.and_then(|layer| self.backward_on(&layer, grad, wanted));
        gradients.inspect_err(|error| {
            if let Some(rank) = self.rank.upgrade().filter(|_| self.way.of_group) {
                rank.notify(error);
            }
        })
    }

    fn backward_on(
        &self,
        layer: &Layer,
        grad: Vec<CubeTensor>,
        wanted: Wanted,
    ) -> Result<Gradients, Error> {
        let grad: Vec<_> = grad.into_iter().map(in_place).collect();
        // A call on several ranks leaves the same sum with each.
        let [weights, biases] = self
            .parameters
            .each_ref()
            .map(|parameter| -> Vec<_> { self.x.iter().map(|_| fresh_like(parameter)).collect() });
        let fresh = |kept: &[Kept]| kept.iter().map(|kept| fresh_like(&kept.tensor)).collect();
        let x: Vec<_> = if wanted.x { fresh(&self.x) } else { Vec::new() };
        let residual = self.residual.as_ref().filter(|_| wanted.residual);
        let residual: Vec<_> = residual.map(|kept| fresh(kept)).unwrap_or_default();
        let gpu = &layer.gpu;
        // Those of the forward call: an optimizer's step since has left others.
        let mut norm = layer.norm(self.way)?;
        let lend = |tensors: &[CubeTensor]| lend_all("gradient", tensors, gpu);
        let grad = lend(&grad)?;
        let mut grad_weight = lend(&weights)?;
        let mut grad_bias = lend(&biases)?;
        let mut grad_x = lend(&x)?;
        let mut grad_residual = lend(&residual)?;
        let _pinned = norm.set_parameters(&self.parameters, gpu)?;
        let mut request = Backward::of(Kept::tensors(&self.x), read(&grad))
            .input_gradient(wanted.x.then(|| written(&mut grad_x)))
            .residual_gradient((!residual.is_empty()).then(|| written(&mut grad_residual)))
            .weight_gradient(written(&mut grad_weight))
            .bias_gradient(written(&mut grad_bias));
        if let Some(residual) = self.residual.as_ref().filter(|_| self.forward.needs_residual()) {
            request = request.residual(Kept::tensors(residual));
        }
        match &*norm {
            Norm::OnDevice(norm) => drop(norm.backward(&self.forward, request)?),
            Norm::OverRanks(norm) => drop(block_on(norm.backward(&self.forward, request))?),
        }
        let first = |tensors: Vec<CubeTensor>| tensors.into_iter().next();
        // Every call has a rank.
        let (weight, bias) = first(weights).zip(first(biases)).ok_or(Error::Gone)?;
        Ok(Gradients { x, residual, weight, bias })
    }
}

/// Every x and its residual in place and in one layout.
fn all_alike(
    x: Vec<CubeTensor>,
    residual: Option<Vec<CubeTensor>>,
) -> (Vec<CubeTensor>, Option<Vec<CubeTensor>>) {
    let Some(residual) = residual else {
        return (x.into_iter().map(in_place).collect(), None);
    };
    let (x, residual): (_, Vec<_>) = x.into_iter().zip(residual).map(|(x, r)| alike(x, r)).unzip();
    (x, Some(residual))
}

fn lend_all(
    argument: &'static str,
    tensors: &[CubeTensor],
    gpu: &syncbn::Device,
) -> Result<Vec<Lent>, Error> {
    tensors.iter().map(|tensor| lend(argument, tensor, gpu)).collect()
}

fn read(lent: &[Lent]) -> Vec<&Tensor> {
    lent.iter().map(|lent| &lent.tensor).collect()
}

fn written(lent: &mut [Lent]) -> Vec<&mut Tensor> {
    lent.iter_mut().map(|lent| &mut lent.tensor).collect()
}

/// Both of two vectors as the layer's tensors.
fn lent(
    argument: &'static str,
    tensors: Option<&[CubeTensor; 2]>,
    gpu: &syncbn::Device,
) -> Result<Option<[Lent; 2]>, Error> {
    let Some([first, second]) = tensors else { return Ok(None) };
    Ok(Some([lend(argument, first, gpu)?, lend(argument, second, gpu)?]))
}
