//! The phases on the host: the storage types found at run time become types of the compiler.

use futures::future::{FutureExt, ready};

use crate::error::{ArgumentError, Error};
use crate::gpu::Pending;
use crate::host;
use crate::shape::Shape;
use crate::stats::{Centering, ChannelStats, GradCentering, GradientSums, Normalization};
use crate::tensor::{HostValues, Storage, Tensor};

/// Runs an expression on the vectors of two [`HostValues`] that go together: one type, or f32 with another.
macro_rules! with_both {
    ($a:expr, $b:expr, $x:ident, $y:ident => $body:expr) => {
        match ($a, $b) {
            (HostValues::F32($x), HostValues::F32($y)) => Ok($body),
            (HostValues::F16($x), HostValues::F16($y)) => Ok($body),
            (HostValues::BF16($x), HostValues::BF16($y)) => Ok($body),
            (HostValues::F32($x), HostValues::F16($y)) => Ok($body),
            (HostValues::F32($x), HostValues::BF16($y)) => Ok($body),
            (HostValues::F16($x), HostValues::F32($y)) => Ok($body),
            (HostValues::BF16($x), HostValues::F32($y)) => Ok($body),
            (HostValues::F16(_), HostValues::BF16(_)) | (HostValues::BF16(_), HostValues::F16(_)) => Err(two_halves()),
        }
    };
}

/// For storage types that the drivers' checks exclude.
fn two_halves() -> Error {
    let (found, expected) = (crate::DType::F16, crate::DType::BF16.to_string());
    ArgumentError::DType { argument: "inputs".to_owned(), found, expected }.into()
}

fn done<T: Send + 'static>(result: T) -> Pending<T> {
    ready(Ok(result)).boxed()
}

/// The values of a parameter in host memory.
pub(super) fn parameter(parameter: Option<&Tensor>) -> Option<&[f32]> {
    match parameter?.storage() {
        Storage::Host(HostValues::F32(values)) => Some(values),
        _ => None,
    }
}

pub(super) fn local_stats(x: &HostValues, shape: &Shape) -> Pending<Vec<ChannelStats>> {
    done(match x {
        HostValues::F32(x) => host::local_stats(x, shape),
        HostValues::F16(x) => host::local_stats(x, shape),
        HostValues::BF16(x) => host::local_stats(x, shape),
    })
}

pub(super) fn normalize(
    x: &HostValues,
    shape: &Shape,
    centering: &[Centering],
    parameters: [Option<&[f32]>; 2],
    y: &mut HostValues,
) -> Result<Pending<()>, Error> {
    with_both!(x, y, x, y => host::normalize(x, shape, centering, parameters, y)).map(done)
}

pub(super) fn local_gradient_sums(
    (g, g_shape): (&HostValues, &Shape),
    (x, shape): (&HostValues, &Shape),
    normalization: &Normalization,
) -> Result<Pending<Vec<GradientSums>>, Error> {
    with_both!(g, x, g, x => done(host::local_gradient_sums((g, g_shape), (x, shape), normalization)))
}

pub(super) fn grad_input(
    (g, g_shape): (&HostValues, &Shape),
    (x, shape): (&HostValues, &Shape),
    batch_statistics: bool,
    centering: &[GradCentering],
    weight: Option<&[f32]>,
    dx: &mut HostValues,
) -> Result<Pending<()>, Error> {
    with_both!(g, x, g, x => {
        let Some(dx) = same_type(x, dx) else { return Err(two_halves()) };
        host::grad_input((g, g_shape), (x, shape), batch_statistics, centering, weight, dx)
    })
    .map(done)
}

/// The vector of `values` if it is of the type of `like`.
fn same_type<'v, T: bytemuck::Pod + crate::Element>(_: &[T], values: &'v mut HostValues) -> Option<&'v mut [T]> {
    match values {
        HostValues::F32(values) if T::DTYPE == crate::DType::F32 => Some(bytemuck::cast_slice_mut(values)),
        HostValues::F16(values) if T::DTYPE == crate::DType::F16 => Some(bytemuck::cast_slice_mut(values)),
        HostValues::BF16(values) if T::DTYPE == crate::DType::BF16 => Some(bytemuck::cast_slice_mut(values)),
        _ => None,
    }
}
