//! The passes of a layer over Burn's primitive tensors, on the thread that calls.

use std::sync::{Arc, Weak};

use burn_cubecl::tensor::CubeTensor;
use pollster::block_on;
use syncbn::stats::GlobalStatistics;
use syncbn::{Backward, Forward};

use crate::error::Error;
use crate::layer::{Layer, Norm, Way};
use crate::memory::{Lent, Pin, alike, fresh_like, in_place, lend};

/// What a forward call takes.
pub(crate) struct Inputs {
    pub x: CubeTensor,
    pub residual: Option<CubeTensor>,
    /// Weight and bias, (C) f32 each.
    pub parameters: [CubeTensor; 2],
    /// Running mean and variance, (C) f32 each: those of evaluation, and of a layer on the device.
    pub running: Option<[CubeTensor; 2]>,
}

/// What a forward call makes.
pub(crate) struct Output {
    pub y: CubeTensor,
    pub saved: Saved,
    /// Running mean and variance after the batch, where they are made on the device.
    pub running: Option<[CubeTensor; 2]>,
}

/// What backward needs of a forward call. Activations and parameters stay where they are until it
/// is dropped.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Not held: Burn keeps a graph that nobody differentiates until a later backward pass, and the
    /// rank would seem to be there all the while.
    layer: Weak<Layer>,
    way: Way,
    x: Kept,
    residual: Option<Kept>,
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

/// What backward makes.
pub(crate) struct Gradients {
    pub x: Option<CubeTensor>,
    pub residual: Option<CubeTensor>,
    pub weight: CubeTensor,
    pub bias: CubeTensor,
}

impl Layer {
    /// y with the statistics of the batch, or of running statistics where it `evaluates`, and what
    /// backward needs.
    pub fn forward(
        self: &Arc<Self>,
        inputs: Inputs,
        way: Way,
        evaluates: bool,
    ) -> Result<Output, Error> {
        let Inputs { x, residual, parameters, running } = inputs;
        let (x, residual) = alike(x, residual);
        let parameters = parameters.map(in_place);
        let running = running.map(|running| running.map(in_place));
        let next =
            running.as_ref().filter(|_| !evaluates).map(|now| now.each_ref().map(fresh_like));
        let y = fresh_like(&x);
        let gpu = &self.rank.gpu;
        let mut norm = self.norm(way)?;
        // From here to the submission nothing of this thread reaches Burn.
        let x = Kept::of("input", x, gpu)?;
        let residual = residual.map(|residual| Kept::of("residual", residual, gpu)).transpose()?;
        let mut output = lend("output", &y, gpu)?;
        let pinned = norm.set_parameters(&parameters, gpu)?;
        let now = lent("running statistics", running.as_ref(), gpu)?;
        let mut after = lent("running statistics", next.as_ref(), gpu)?;
        let mut request = Forward::of(&x.lent.tensor);
        if let Some(residual) = &residual {
            request = request.residual(&residual.lent.tensor);
        }
        let mut request = request.write_to(&mut output.tensor);
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
    fn of(argument: &'static str, tensor: CubeTensor, gpu: &syncbn::Device) -> Result<Self, Error> {
        let lent = lend(argument, &tensor, gpu)?;
        Ok(Self { tensor, lent })
    }
}

impl Saved {
    /// The statistics of the group, where they came to the host.
    pub fn statistics(&self) -> Option<&GlobalStatistics> {
        self.forward.statistics()
    }

    /// The gradients of the call, from that of y; those of weight and bias are f32, of this rank's
    /// values alone. Others are computed where they are wanted; the other ranks need this one's
    /// sums in any case.
    pub fn backward(&self, grad: CubeTensor, wanted: Wanted) -> Result<Gradients, Error> {
        let layer = self.layer.upgrade().ok_or(Error::Gone)?;
        self.backward_on(&layer, grad, wanted).inspect_err(|error| layer.rank.tell(error))
    }

    fn backward_on(
        &self,
        layer: &Layer,
        grad: CubeTensor,
        wanted: Wanted,
    ) -> Result<Gradients, Error> {
        let grad = in_place(grad);
        let [weight, bias] = self.parameters.each_ref().map(fresh_like);
        let x = wanted.x.then(|| fresh_like(&self.x.tensor));
        let residual = self.residual.as_ref().filter(|_| wanted.residual);
        let residual = residual.map(|residual| fresh_like(&residual.tensor));
        let gpu = &layer.rank.gpu;
        // Those of the forward call: an optimizer's step since has left others.
        let mut norm = layer.norm(self.way)?;
        let lend = |tensor| lend("gradient", tensor, gpu);
        let (grad, mut targets) = (lend(&grad)?, [lend(&weight)?, lend(&bias)?]);
        let mut grad_x = x.as_ref().map(lend).transpose()?;
        let mut grad_residual = residual.as_ref().map(lend).transpose()?;
        let _pinned = norm.set_parameters(&self.parameters, gpu)?;
        let [grad_weight, grad_bias] = &mut targets;
        let mut request = Backward::of(&self.x.lent.tensor, &grad.tensor)
            .input_gradient(grad_x.as_mut().map(|lent| &mut lent.tensor))
            .residual_gradient(grad_residual.as_mut().map(|lent| &mut lent.tensor))
            .weight_gradient(&mut grad_weight.tensor)
            .bias_gradient(&mut grad_bias.tensor);
        if let Some(residual) = self.residual.as_ref().filter(|_| self.forward.needs_residual()) {
            request = request.residual(&residual.lent.tensor);
        }
        match &*norm {
            Norm::OnDevice(norm) => drop(norm.backward(&self.forward, request)?),
            Norm::OverRanks(norm) => drop(block_on(norm.backward(&self.forward, request))?),
        }
        Ok(Gradients { x, residual, weight, bias })
    }
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
