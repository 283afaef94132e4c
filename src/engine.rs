//! The phases on one device, whichever it is: sums before the exchange, outputs after it.
//!
//! Takes tensors whose shapes, devices and storage types the driver has checked. Merging across devices happens elsewhere.

mod gpu;
mod host;

use crate::device::Kind;
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
}

/// Checks that forward fits the device's limits, without doing anything.
pub(crate) fn check_limits(x: View<'_>) -> Result<(), Error> {
    match x.tensor.device().kind() {
        Kind::Gpu(gpu) => gpu::check_limits(gpu, x.activation()),
        Kind::Host => Ok(()),
    }
}

/// Local statistics of x, one per channel. A GPU has its work when this returns; the host is done.
pub(crate) fn local_stats(x: View<'_>) -> Result<Pending<Vec<ChannelStats>>, Error> {
    match (x.tensor.storage(), x.tensor.device().kind()) {
        (Storage::Host(values), _) => Ok(host::local_stats(values, x.shape)),
        (Storage::Gpu(slice), Kind::Gpu(gpu)) => {
            gpu::local_stats(gpu, x.tensor.device().deadline(), slice, x.activation())
        }
        (Storage::Gpu(_), Kind::Host) => Err(misplaced(x.tensor)),
    }
}

/// y = act(normalized x + residual), all of one shape and layout on one device, the residual stored as x.
pub(crate) fn apply(
    x: View<'_>,
    residual: Option<&Tensor>,
    centering: &[Centering],
    layer: Layer<'_>,
    y: &mut Tensor,
) -> Result<Pending<()>, Error> {
    let (device, y_dtype) = (y.device().clone(), y.dtype());
    match (x.tensor.storage(), y.storage_mut(), device.kind()) {
        (Storage::Host(values), Storage::Host(y), _) => {
            host::normalize((values, x.shape), residual, centering, layer, y)
        }
        (Storage::Gpu(slice), Storage::Gpu(y), Kind::Gpu(gpu)) => {
            let x = (slice, x.activation());
            gpu::apply(gpu, x, device_slice(residual), centering, gpu::Layer::of(layer), (y, y_dtype))
        }
        _ => Err(misplaced(x.tensor)),
    }
}

/// What backward reads of one rank: g = grad_output, x, and the residual where it decides on the activation.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'a> {
    pub g: View<'a>,
    pub x: View<'a>,
    pub residual: Option<&'a Tensor>,
}

/// Local gradient sums before the activation, one per channel.
pub(crate) fn local_gradient_sums(
    upstream: Upstream<'_>,
    normalization: &Normalization,
    layer: Layer<'_>,
) -> Result<Pending<Vec<GradientSums>>, Error> {
    let x = upstream.x.tensor;
    match x.device().kind() {
        Kind::Host => host::local_gradient_sums(upstream, normalization, layer),
        Kind::Gpu(gpu) => {
            let reads = gpu::Reads::of(upstream).ok_or_else(|| misplaced(x))?;
            gpu::local_gradient_sums(gpu, x.device().deadline(), reads, normalization, gpu::Layer::of(layer))
        }
    }
}

/// The gradient of x, of its shape, layout and storage type, and beside it that of the residual where it is wanted.
///
/// `batch_statistics` tells whether the statistics depend on x.
pub(crate) fn grad_input(
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
        (Storage::Host(dx), _) => host::grad_input(upstream, batch_statistics, centering, layer, dx, grad_residual),
        (Storage::Gpu(dx), Kind::Gpu(gpu)) => {
            let reads = gpu::Reads::of(upstream).ok_or_else(|| misplaced(upstream.x.tensor))?;
            let grad_residual = match grad_residual {
                Some(Storage::Gpu(slice)) => Some(&*slice),
                _ => None,
            };
            let layer = gpu::Layer::of(layer);
            gpu::grad_input(gpu, reads, batch_statistics, centering, layer, (dx, grad_residual))
        }
        _ => Err(misplaced(upstream.x.tensor)),
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
    ArgumentError::NotAGpu { device: tensor.device().to_string() }.into()
}
