//! The phases on one device, whichever it is: sums before the exchange, outputs after it.
//!
//! Takes tensors whose shapes and devices the driver has checked. Merging across devices happens elsewhere.

mod gpu;

use futures::future::{FutureExt, ready};

use crate::device::Kind;
use crate::error::{ArgumentError, Error};
use crate::gpu::Pending;
use crate::host;
use crate::shape::Shape;
use crate::stats::{Centering, ChannelStats, GradCentering, GradientSums, Normalization};
use crate::tensor::{Storage, Tensor};

/// Checks that every phase fits the device's limits, without doing anything.
pub(crate) fn check_limits(x: &Tensor, shape: &Shape) -> Result<(), Error> {
    match x.device().kind() {
        Kind::Gpu(gpu) => gpu::check_limits(gpu, shape),
        Kind::Host => Ok(()),
    }
}

/// Local statistics of x, (N, C, spatial…), one per channel. A GPU has its work when this returns; the host is done.
pub(crate) fn local_stats(x: &Tensor, shape: &Shape) -> Result<Pending<Vec<ChannelStats>>, Error> {
    match (x.storage(), x.device().kind()) {
        (Storage::Host(x), _) => Ok(ready(Ok(host::local_stats(x, shape))).boxed()),
        (Storage::Gpu(slice), Kind::Gpu(gpu)) => gpu::local_stats(gpu, x.device().deadline(), slice, shape),
        (Storage::Gpu(_), Kind::Host) => Err(misplaced(x)),
    }
}

/// Normalizes x into y, both (N, C, spatial…) on one device, weight and bias (C) there too.
pub(crate) fn apply(
    x: &Tensor,
    shape: &Shape,
    centering: &[Centering],
    [weight, bias]: [Option<&Tensor>; 2],
    y: &mut Tensor,
) -> Result<Pending<()>, Error> {
    let device = y.device().clone();
    match (x.storage(), y.storage_mut(), device.kind()) {
        (Storage::Host(x), Storage::Host(y), _) => {
            host::normalize(x, shape, centering, host_values(weight), host_values(bias), y);
            Ok(ready(Ok(())).boxed())
        }
        (Storage::Gpu(x), Storage::Gpu(y), Kind::Gpu(gpu)) => {
            gpu::apply(gpu, x, shape, centering, [device_slice(weight), device_slice(bias)], y)
        }
        _ => Err(misplaced(x)),
    }
}

/// Local gradient sums, one per channel, from g = grad_output and x, (N, C, spatial…) each.
pub(crate) fn local_gradient_sums(
    g: &Tensor,
    x: &Tensor,
    shape: &Shape,
    normalization: &Normalization,
) -> Result<Pending<Vec<GradientSums>>, Error> {
    match (g.storage(), x.storage(), x.device().kind()) {
        (Storage::Host(g), Storage::Host(x), _) => {
            Ok(ready(Ok(host::local_gradient_sums(g, x, shape, normalization))).boxed())
        }
        (Storage::Gpu(g), Storage::Gpu(x_slice), Kind::Gpu(gpu)) => {
            gpu::local_gradient_sums(gpu, x.device().deadline(), g, x_slice, shape, normalization)
        }
        _ => Err(misplaced(x)),
    }
}

/// The gradient of x from g = grad_output, all (N, C, spatial…) on one device, weight (C) there too.
///
/// `batch_statistics` tells whether the statistics depend on x.
pub(crate) fn grad_input(
    [g, x]: [&Tensor; 2],
    shape: &Shape,
    batch_statistics: bool,
    centering: &[GradCentering],
    weight: Option<&Tensor>,
    dx: &mut Tensor,
) -> Result<Pending<()>, Error> {
    let device = dx.device().clone();
    match (g.storage(), x.storage(), dx.storage_mut(), device.kind()) {
        (Storage::Host(g), Storage::Host(x), Storage::Host(dx), _) => {
            host::grad_input(g, x, shape, batch_statistics, centering, host_values(weight), dx);
            Ok(ready(Ok(())).boxed())
        }
        (Storage::Gpu(g), Storage::Gpu(x), Storage::Gpu(dx), Kind::Gpu(gpu)) => {
            gpu::grad_input(gpu, [g, x], shape, batch_statistics, centering, device_slice(weight), dx)
        }
        _ => Err(misplaced(x)),
    }
}

fn host_values(parameter: Option<&Tensor>) -> Option<&[f32]> {
    match parameter?.storage() {
        Storage::Host(values) => Some(values),
        Storage::Gpu(_) => None,
    }
}

fn device_slice(parameter: Option<&Tensor>) -> Option<&crate::gpu::BufferSlice> {
    match parameter?.storage() {
        Storage::Gpu(slice) => Some(slice),
        Storage::Host(_) => None,
    }
}

/// For tensors that lie elsewhere than their device says, which constructors and the drivers' checks exclude.
fn misplaced(tensor: &Tensor) -> Error {
    ArgumentError::NotAGpu { device: tensor.device().to_string() }.into()
}
