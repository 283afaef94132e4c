//! The phases on the host: the storage types found at run time become types of the compiler.

use futures::future::{FutureExt, ready};

use super::{Layer, Upstream};
use crate::dtype::{DType, Element};
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
    let (found, expected) = (DType::F16, DType::BF16.to_string());
    ArgumentError::DType { argument: "inputs".to_owned(), found, expected }.into()
}

fn done<T: Send + 'static>(result: T) -> Pending<T> {
    ready(Ok(result)).boxed()
}

/// The layer with its parameters in host memory.
fn layer(layer: Layer<'_>) -> host::Layer<'_> {
    host::Layer {
        weight: layer.weight.and_then(f32_values),
        bias: layer.bias.and_then(f32_values),
        epilogue: layer.epilogue,
    }
}

/// The values of an f32 tensor in host memory.
fn f32_values(tensor: &Tensor) -> Option<&[f32]> {
    match tensor.storage() {
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
    (x, shape): (&HostValues, &Shape),
    residual: Option<&Tensor>,
    centering: &[Centering],
    of: Layer<'_>,
    y: &mut HostValues,
) -> Result<Pending<()>, Error> {
    with_both!(x, y, x, y => {
        host::normalize((x, shape), residual.and_then(|tensor| values_like(x, tensor)), centering, layer(of), y)
    })
    .map(done)
}

pub(super) fn local_gradient_sums(
    upstream: Upstream<'_>,
    normalization: &Normalization,
    of: Layer<'_>,
) -> Result<Pending<Vec<GradientSums>>, Error> {
    let (g, x) = pair(upstream)?;
    with_both!(g, x, g, x => {
        host::local_gradient_sums(typed(upstream, g, x), normalization, layer(of))
    })
    .map(done)
}

pub(super) fn grad_input(
    upstream: Upstream<'_>,
    batch_statistics: bool,
    centering: &[GradCentering],
    of: Layer<'_>,
    dx: &mut HostValues,
    grad_residual: Option<&mut Storage>,
) -> Result<Pending<()>, Error> {
    let (g, x) = pair(upstream)?;
    let mut grad_residual = match grad_residual {
        Some(Storage::Host(values)) => Some(values),
        _ => None,
    };
    with_both!(g, x, g, x => {
        let Some(dx) = same_type(x, dx) else { return Err(two_halves()) };
        let grad_residual = grad_residual.take().and_then(|values| same_type(x, values));
        host::grad_input(typed(upstream, g, x), batch_statistics, centering, layer(of), dx, grad_residual)
    })
    .map(done)
}

/// The values of grad_output and of x.
fn pair(upstream: Upstream<'_>) -> Result<(&HostValues, &HostValues), Error> {
    match (upstream.g.tensor.storage(), upstream.x.tensor.storage()) {
        (Storage::Host(g), Storage::Host(x)) => Ok((g, x)),
        _ => Err(super::misplaced(upstream.x.tensor)),
    }
}

fn typed<'a, G: Element, X: Element>(upstream: Upstream<'a>, g: &'a [G], x: &'a [X]) -> host::Upstream<'a, G, X> {
    let residual = upstream.residual.and_then(|tensor| values_like(x, tensor));
    host::Upstream { g, g_shape: upstream.g.shape, x, shape: upstream.x.shape, residual }
}

/// The values of a tensor in host memory if they are of the type of `like`.
fn values_like<'a, T: Element>(_: &[T], tensor: &'a Tensor) -> Option<&'a [T]> {
    match tensor.storage() {
        Storage::Host(HostValues::F32(values)) => bytemuck::try_cast_slice(values).ok(),
        Storage::Host(HostValues::F16(values)) => bytemuck::try_cast_slice(values).ok(),
        Storage::Host(HostValues::BF16(values)) => bytemuck::try_cast_slice(values).ok(),
        Storage::Gpu(_) => None,
    }
    .filter(|_| tensor.dtype() == T::DTYPE)
}

/// The vector of `values` if it is of the type of `like`.
fn same_type<'v, T: Element>(_: &[T], values: &'v mut HostValues) -> Option<&'v mut [T]> {
    match values {
        HostValues::F32(values) if T::DTYPE == DType::F32 => Some(bytemuck::cast_slice_mut(values)),
        HostValues::F16(values) if T::DTYPE == DType::F16 => Some(bytemuck::cast_slice_mut(values)),
        HostValues::BF16(values) if T::DTYPE == DType::BF16 => Some(bytemuck::cast_slice_mut(values)),
        _ => None,
    }
}
