//! The phases on one device, whichever it is: local statistics, and applying what the coordinator found.
//!
//! Takes tensors whose shapes and devices the driver has checked. Merging across devices happens elsewhere.

mod gpu;

use futures::future::{FutureExt, ready};

use crate::device::Kind;
use crate::error::{ArgumentError, Error};
use crate::gpu::Pending;
use crate::host;
use crate::shape::Shape;
use crate::stats::{Centering, ChannelStats};
use crate::tensor::{Storage, Tensor};

/// Weight and bias of one rank, (C) each, on its device.
#[derive(Debug, Default)]
pub(crate) struct AffineParameters {
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
}

/// Local statistics of x, (N, C, spatial…), one per channel. A GPU has its work when this returns; the host is done.
pub(crate) fn local_stats(x: &Tensor, shape: &Shape) -> Result<Pending<Vec<ChannelStats>>, Error> {
    match (x.storage(), x.device().kind()) {
        (Storage::Host(x), _) => Ok(ready(Ok(host::local_stats(x, shape))).boxed()),
        (Storage::Gpu(slice), Kind::Gpu(gpu)) => gpu::local_stats(gpu, x.device().deadline(), slice, shape),
        (Storage::Gpu(_), Kind::Host) => Err(misplaced(x)),
    }
}

/// Checks that [`apply`] fits the device's limits, without doing anything.
pub(crate) fn check_limits(x: &Tensor, shape: &Shape) -> Result<(), Error> {
    match x.device().kind() {
        Kind::Gpu(gpu) => gpu::check_limits(gpu, shape),
        Kind::Host => Ok(()),
    }
}

/// Normalizes x into y, both (N, C, spatial…) on the device of `parameters`.
pub(crate) fn apply(
    x: &Tensor,
    shape: &Shape,
    centering: &[Centering],
    parameters: &AffineParameters,
    y: &mut Tensor,
) -> Result<Pending<()>, Error> {
    let device = y.device().clone();
    match (x.storage(), y.storage_mut(), device.kind()) {
        (Storage::Host(x), Storage::Host(y), _) => {
            let (weight, bias) = (host_values(&parameters.weight), host_values(&parameters.bias));
            host::normalize(x, shape, centering, weight, bias, y);
            Ok(ready(Ok(())).boxed())
        }
        (Storage::Gpu(x), Storage::Gpu(y), Kind::Gpu(gpu)) => gpu::apply(gpu, x, shape, centering, parameters, y),
        _ => Err(misplaced(x)),
    }
}

fn host_values(parameter: &Option<Tensor>) -> Option<&[f32]> {
    match parameter.as_ref()?.storage() {
        Storage::Host(values) => Some(values),
        Storage::Gpu(_) => None,
    }
}

/// For tensors that lie elsewhere than their device says, which constructors and the drivers' checks exclude.
fn misplaced(tensor: &Tensor) -> Error {
    ArgumentError::NotAGpu { device: tensor.device().to_string() }.into()
}
