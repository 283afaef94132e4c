//! Backward: gradient sums of every rank, their merge, the gradients of parameters, inputs and residuals.

use super::super::{Layer, Source, Upstream, View, device_slice, gpu, misplaced};
use super::{Centers, Scratch, Sums, gpu_of, send, written};
use crate::device::Device;
use crate::error::Error;
use crate::gpu::{BufferSlice, Lease};
use crate::plan::{ApplyPlan, Gradient, ParameterGradients, Role, SumsPlan};
use crate::stats::GradCentering;
use crate::tensor::Tensor;

/// What a backward call reads and writes on one rank; what is `None` is not wanted.
pub(crate) struct BackwardRank<'a> {
    pub g: Source<'a>,
    pub upstream: Upstream<'a>,
    pub layer: Layer<'a>,
    /// What `g` is where that is written over.
    pub grad_input: Option<&'a mut Tensor>,
    pub grad_residual: Option<&'a mut Tensor>,
    pub grad_weight: Option<&'a mut Tensor>,
    pub grad_bias: Option<&'a mut Tensor>,
}

/// A rank whose plans are made and whose memory is there.
struct Prepared<'a> {
    g: BufferSlice,
    reads: gpu::Reads<'a>,
    layer: gpu::Layer<'a>,
    sums: Option<Sums>,
    grad_centering: Lease,
    grad_weight: Option<BufferSlice>,
    grad_bias: Option<BufferSlice>,
    apply: Option<Applied>,
}

/// The kernels that write the gradients of activations, and where.
struct Applied {
    plan: ApplyPlan,
    grad_input: BufferSlice,
    grad_residual: Option<BufferSlice>,
}

/// Records and, without an encoder of the application, submits a whole backward pass over ranks with `channels` channels.
///
/// `parameters_of_all` is what the sums of all ranks are divided by for the gradients of the parameters; `None` gives
/// every rank its own.
pub(crate) fn backward(
    device: &Device,
    ranks: Vec<BackwardRank<'_>>,
    channels: usize,
    centers: &Centers,
    parameters_of_all: Option<f32>,
    encoder: Option<&mut wgpu::CommandEncoder>,
) -> Result<(), Error> {
    let gpu = gpu_of(device)?;
    let scratch = Scratch { gpu, is_encoded: encoder.is_some() };
    let merge = &centers.merge;
    let locals = scratch.take(merge.bytes())?;
    let mut prepared = Vec::with_capacity(ranks.len());
    for (index, rank) in ranks.into_iter().enumerate() {
        let x = rank.upstream.x;
        let layer = gpu::Layer::of(rank.layer, rank.upstream.mask);
        let plan = SumsPlan::gradient(x.activation(), rank.g.activation(x.tensor.dtype()), gpu.caps(), layer.flags())?;
        let g = device_slice(rank.g.tensor().or(rank.grad_input.as_deref()));
        prepared.push(Prepared {
            g: g.ok_or_else(|| misplaced(x.tensor))?.clone(),
            reads: gpu::Reads::of(rank.g, rank.upstream).ok_or_else(|| misplaced(x.tensor))?,
            layer,
            sums: Sums::new(scratch, plan, locals.part(merge.slot(index)))?,
            grad_centering: scratch.take((channels * size_of::<GradCentering>()) as u64)?,
            grad_weight: rank.grad_weight.map(written).transpose()?,
            grad_bias: rank.grad_bias.map(written).transpose()?,
            apply: applied(gpu, (x, rank.g), layer, centers.of_batch, (rank.grad_input, rank.grad_residual))?,
        });
    }
    send(gpu, "backward", encoder, |recorder| {
        for (index, rank) in prepared.iter().enumerate() {
            let center = centers.centering(index);
            let slice_of = |role| match role {
                Role::GradOutput => &rank.g,
                _ => gpu::backward_slice(gpu, role, rank.reads, center, rank.layer),
            };
            rank.sums.iter().for_each(|sums| sums.record(recorder, slice_of));
        }
        for (index, rank) in prepared.iter().enumerate() {
            let (weight, bias) = (rank.grad_weight.is_some(), rank.grad_bias.is_some());
            let wanted = ParameterGradients { weight, bias, of_all: parameters_of_all, accumulate: false };
            recorder.dispatch(&merge.gradient(index, centers.of_batch, wanted), |role| match role {
                Role::Locals => &locals,
                Role::Shares => &centers.shares,
                Role::GradCentering => &rank.grad_centering,
                Role::GradWeight => rank.grad_weight.as_ref().unwrap_or(gpu.spare(0)),
                Role::GradBias => rank.grad_bias.as_ref().unwrap_or(gpu.spare(1)),
                _ => centers.centering(index),
            });
        }
        for rank in &prepared {
            let Some(Applied { plan, grad_input, grad_residual }) = &rank.apply else { continue };
            let slice_of = |role| match role {
                Role::GradInput => grad_input,
                Role::GradResidual => grad_residual.as_ref().unwrap_or(grad_input),
                _ => gpu::backward_slice(gpu, role, rank.reads, &rank.grad_centering, rank.layer),
            };
            plan.dispatches.iter().for_each(|dispatch| recorder.dispatch(dispatch, slice_of));
        }
    })
}

/// The last kernels of a rank; `None` where neither gradient is wanted, or the rank has no value.
fn applied(
    gpu: &crate::gpu::Gpu,
    (x, g): (View<'_>, Source<'_>),
    layer: gpu::Layer<'_>,
    batch_statistics: bool,
    (grad_input, grad_residual): (Option<&mut Tensor>, Option<&mut Tensor>),
) -> Result<Option<Applied>, Error> {
    if grad_input.is_none() && grad_residual.is_none() {
        return Ok(None);
    }
    let in_place = matches!(g, Source::Over(_));
    let wanted = Gradient { batch_statistics, residual: grad_residual.is_some(), in_place };
    let g = g.activation(x.tensor.dtype());
    let plan = ApplyPlan::gradient(x.activation(), g, gpu.caps(), layer.flags(), wanted)?;
    let Some(plan) = plan else { return Ok(None) };
    // One kernel writes both; a gradient of the input that nobody wants goes nowhere.
    let grad_input = match grad_input {
        Some(tensor) => written(tensor)?,
        None => written(&mut x.tensor.zeros_like()?)?,
    };
    Ok(Some(Applied { plan, grad_input, grad_residual: grad_residual.map(written).transpose()? }))
}
