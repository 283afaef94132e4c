//! The phases on one device, whichever it is: sums before the exchange, outputs after it.
//!
//! Takes tensors whose shapes, devices and storage types the driver has checked. Merging across devices happens elsewhere.

mod gpu;
mod host;

use crate::device::Kind;
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

/// Normalizes x into y, of one shape and layout on one device, weight and bias (C) there too.
pub(crate) fn apply(
    x: View<'_>,
    centering: &[Centering],
    parameters: [Option<&Tensor>; 2],
    y: &mut Tensor,
) -> Result<Pending<()>, Error> {
    let (device, y_dtype) = (y.device().clone(), y.dtype());
    match (x.tensor.storage(), y.storage_mut(), device.kind()) {
        (Storage::Host(values), Storage::Host(y), _) => {
            host::normalize(values, x.shape, centering, parameters.map(host::parameter), y)
        }
        (Storage::Gpu(slice), Storage::Gpu(y), Kind::Gpu(gpu)) => {
            gpu::apply(gpu, (slice, x.activation()), centering, parameters.map(device_slice), (y, y_dtype))
        }
        _ => Err(misplaced(x.tensor)),
    }
}

/// Local gradient sums, one per channel, from g = grad_output and x.
pub(crate) fn local_gradient_sums(
    g: View<'_>,
    x: View<'_>,
    normalization: &Normalization,
) -> Result<Pending<Vec<GradientSums>>, Error> {
    match (g.tensor.storage(), x.tensor.storage(), x.tensor.device().kind()) {
        (Storage::Host(g_values), Storage::Host(values), _) => {
            host::local_gradient_sums((g_values, g.shape), (values, x.shape), normalization)
        }
        (Storage::Gpu(g_slice), Storage::Gpu(slice), Kind::Gpu(gpu)) => {
            let (g, deadline) = ((g_slice, g.activation()), x.tensor.device().deadline());
            gpu::local_gradient_sums(gpu, deadline, g, (slice, x.activation()), normalization)
        }
        _ => Err(misplaced(x.tensor)),
    }
}

/// The gradient of x from g = grad_output, all on one device, dx of the shape, layout and storage type of x, weight (C).
///
/// `batch_statistics` tells whether the statistics depend on x.
pub(crate) fn grad_input(
    [g, x]: [View<'_>; 2],
    batch_statistics: bool,
    centering: &[GradCentering],
    weight: Option<&Tensor>,
    dx: &mut Tensor,
) -> Result<Pending<()>, Error> {
    let device = dx.device().clone();
    match (g.tensor.storage(), x.tensor.storage(), dx.storage_mut(), device.kind()) {
        (Storage::Host(g_values), Storage::Host(values), Storage::Host(dx), _) => {
            let (g, x) = ((g_values, g.shape), (values, x.shape));
            host::grad_input(g, x, batch_statistics, centering, host::parameter(weight), dx)
        }
        (Storage::Gpu(g_slice), Storage::Gpu(slice), Storage::Gpu(dx), Kind::Gpu(gpu)) => {
            let (g, x) = ((g_slice, g.activation()), (slice, x.activation()));
            gpu::grad_input(gpu, [g, x], batch_statistics, centering, device_slice(weight), dx)
        }
        _ => Err(misplaced(x.tensor)),
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
