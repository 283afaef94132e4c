//! The phases on one device, whichever it is: sums before the exchange, outputs after it.
//!
//! Takes tensors whose shapes, devices and storage types the driver has checked. Merging across devices happens elsewhere.

mod accumulate;
mod gpu;
mod host;
mod many;
mod mask;
pub(crate) mod resident;
mod together;

pub(crate) use many::{Apply, apply_many, local_stats_many};
pub(crate) use mask::Mask;
pub(crate) use together::{BackwardRank, ForwardRank, backward, forward};

use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::epilogue::Epilogue;
use crate::error::{ArgumentError, Error};
use crate::gpu::{BufferSlice, Pending};
use crate::plan::Activation;
use crate::shape::Shape;
use crate::stats::{Centering, ChannelStats, GradCentering, GradientSums, Normalization};
use crate::tensor::{Storage, Tensor};

/// A tensor together with its shape, checked.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub tensor: &'a Tensor,
    pub shape: &'a Shape,
}

impl<'a> View<'a> {
    fn activation(self) -> Activation<'a> {
        Activation { shape: self.shape, dtype: self.tensor.dtype() }
    }
}

/// What a layer is on one device: weight and bias, (C) each, and how it ends.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub weight: Option<&'a Tensor>,
    pub bias: Option<&'a Tensor>,
    pub epilogue: Epilogue,
    /// Ranks of the host that one caller computes after each other, this one included.
    pub host_ranks: usize,
}

/// Checks that forward fits the device's limits, without doing anything.
pub(crate) fn check_limits(x: View<'_>) -> Result<(), Error> {
    match x.tensor.device().kind() {
        Kind::Gpu(gpu) => gpu::check_limits(gpu, x.activation()),
        Kind::Host(_) => Ok(()),
    }
}

/// Compiles what forward and backward over an activation need where everything is stored alike.
pub(crate) fn prepare(
    device: &Device,
    shape: &Shape,
    dtype: DType,
    layer: Layer<'_>,
    keeps_mask: bool,
) -> Result<(), Error> {
    match device.kind() {
        Kind::Gpu(gpu) => gpu::prepare(gpu, Activation { shape, dtype }, layer, keeps_mask),
        Kind::Host(_) => Ok(()),
    }
}

/// Local statistics of x, one per channel. A GPU has its work when this returns; the host is done.
///
/// `eps` is what is added to the variance: where it is far above, a variance near 0 need not be known.
pub(crate) fn local_stats(x: View<'_>, eps: f64) -> Result<Pending<Vec<ChannelStats>>, Error> {
    match (x.tensor.storage(), x.tensor.device().kind()) {
        (Storage::Host(values), kind) => Ok(host::local_stats(values, x.shape, host::threads(kind))),
        (Storage::Gpu(slice), Kind::Gpu(gpu)) => {
            gpu::local_stats(gpu, x.tensor.device().deadline(), slice, x.activation(), eps)
        }
        (Storage::Gpu(_), Kind::Host(_)) => Err(misplaced(x.tensor)),
    }
}

/// What a kernel reads of the activation that it replaces: a tensor of its own, or what it writes over.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Apart(View<'a>),
    Over(&'a Shape),
}

impl<'a> Source<'a> {
    fn shape(self) -> &'a Shape {
        match self {
            Self::Apart(view) => view.shape,
            Self::Over(shape) => shape,
        }
    }

    fn tensor(self) -> Option<&'a Tensor> {
        match self {
            Self::Apart(view) => Some(view.tensor),
            Self::Over(_) => None,
        }
    }

    /// Where it is what the kernel writes over, it is stored as that.
    fn activation(self, written: DType) -> Activation<'a> {
        Activation { shape: self.shape(), dtype: self.tensor().map_or(written, Tensor::dtype) }
    }
}

/// y = act(normalized x + residual), all of one shape and layout on one device, the residual stored as x. Where there is a
/// mask, it is filled.
pub(crate) fn apply(
    x: Source<'_>,
    residual: Option<&Tensor>,
    centering: &[Centering],
    layer: Layer<'_>,
    y: &mut Tensor,
    mask: Option<&mut Mask>,
) -> Result<Pending<()>, Error> {
    let (device, y_dtype) = (y.device().clone(), y.dtype());
    match (y.storage_mut(), device.kind()) {
        (Storage::Host(y), kind) => host::normalize(x, residual, centering, layer, (y, mask), host::threads(kind)),
        (Storage::Gpu(y), Kind::Gpu(gpu)) => {
            let (x, residual) = ((device_slice(x.tensor()), x.activation(y_dtype)), device_slice(residual));
            let layer = gpu::Layer::of(layer, mask.as_deref());
            gpu::apply(gpu, x, residual, centering, layer, (y, y_dtype))
        }
        (Storage::Gpu(_), Kind::Host(_)) => Err(misplaced_on(&device)),
    }
}

/// What backward reads of one rank but the gradient: x, and what decides on the side of the activation.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'a> {
    pub x: View<'a>,
    /// The residual, where it decides.
    pub residual: Option<&'a Tensor>,
    /// Forward's mask, which decides where there is one.
    pub mask: Option<&'a Mask>,
}

/// Local gradient sums before the activation, one per channel; g = grad_output.
pub(crate) fn local_gradient_sums(
    g: View<'_>,
    upstream: Upstream<'_>,
    normalization: &Normalization,
    layer: Layer<'_>,
) -> Result<Pending<Vec<GradientSums>>, Error> {
    let x = upstream.x.tensor;
    match x.device().kind() {
        Kind::Host(threads) => host::local_gradient_sums(g, upstream, normalization, layer, threads),
        Kind::Gpu(gpu) => {
            let reads = gpu::Reads::of(Source::Apart(g), upstream).ok_or_else(|| misplaced(x))?;
            let layer = gpu::Layer::of(layer, upstream.mask);
            gpu::local_gradient_sums(gpu, x.device().deadline(), reads, normalization, layer)
        }
    }
}

/// The gradient of x, of its shape, layout and storage type, and beside it that of the residual where it is wanted.
///
/// `batch_statistics` tells whether the statistics depend on x.
pub(crate) fn grad_input(
    g: Source<'_>,
    upstream: Upstream<'_>,
    batch_statistics: bool,
    centering: &[GradCentering],
    layer: Layer<'_>,
    dx: &mut Tensor,
    grad_residual: Option<&mut Tensor>,
) -> Result<Pending<()>, Error> {
    let device = dx.device().clone();
    let grad_residual = grad_residual.map(Tensor::storage_mut);
    match (dx.storage_mut(), device.kind()) {
        (Storage::Host(dx), kind) => {
            let targets = (dx, grad_residual);
            host::grad_input(g, upstream, batch_statistics, centering, layer, targets, host::threads(kind))
        }
        (Storage::Gpu(dx), Kind::Gpu(gpu)) => {
            let reads = gpu::Reads::of(g, upstream).ok_or_else(|| misplaced(upstream.x.tensor))?;
            let grad_residual = match grad_residual {
                Some(Storage::Gpu(slice)) => Some(&*slice),
                _ => None,
            };
            let layer = gpu::Layer::of(layer, upstream.mask);
            gpu::grad_input(gpu, reads, batch_statistics, centering, layer, (dx, grad_residual))
        }
        (Storage::Gpu(_), Kind::Host(_)) => Err(misplaced(upstream.x.tensor)),
    }
}

fn device_slice(parameter: Option<&Tensor>) -> Option<&BufferSlice> {
    match parameter?.storage() {
        Storage::Gpu(slice) => Some(slice),
        Storage::Host(_) => None,
    }
}

/// For tensors that lie elsewhere than their device says, which constructors and the drivers' checks exclude.
fn misplaced(tensor: &Tensor) -> Error {
    misplaced_on(tensor.device())
}

fn misplaced_on(device: &Device) -> Error {
    ArgumentError::NotAGpu { device: device.to_string() }.into()
}
