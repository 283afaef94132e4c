//! The phases on the host: the storage types found at run time become types of the compiler.

use std::sync::Arc;

use futures::future::{FutureExt, ready};

use super::{Layer, Mask, Source, Upstream, View};
use crate::device::Kind;
use crate::dtype::{DType, Element};
use crate::error::{ArgumentError, Error};
use crate::gpu::Pending;
use crate::host::{self, Threads};
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

/// Runs an expression on the vector that some [`HostValues`] hold, whatever its type.
macro_rules! with_values {
    ($values:expr, $name:ident => $body:expr) => {
        match $values {
            HostValues::F32($name) => $body,
            HostValues::F16($name) => $body,
            HostValues::BF16($name) => $body,
        }
    };
}

/// For storage types that the drivers' checks exclude.
fn two_halves() -> Error {
    let (found, expected) = (DType::F16, DType::BF16.to_string());
    ArgumentError::DType { argument: "inputs".to_owned(), found, expected }.into()
}

/// The threads of a host device; the usual ones for memory that lies here although its device is another.
pub(super) fn threads(kind: &Kind) -> &Threads {
    static GLOBAL: Threads = Threads::GLOBAL;
    match kind {
        Kind::Host(threads) => threads,
        Kind::Gpu(_) => &GLOBAL,
    }
}

fn done<T: Send + 'static>(result: T) -> Pending<T> {
    ready(Ok(result)).boxed()
}

/// The layer with its parameters in host memory.
pub(super) fn layer(layer: Layer<'_>) -> host::Layer<'_> {
    host::Layer {
        weight: layer.weight.and_then(f32_values),
        bias: layer.bias.and_then(f32_values),
        epilogue: layer.epilogue,
        ranks: layer.host_ranks,
    }
}

/// The values of an f32 tensor in host memory.
fn f32_values(tensor: &Tensor) -> Option<&[f32]> {
    match tensor.storage() {
        Storage::Host(HostValues::F32(values)) => Some(values),
        _ => None,
    }
}

pub(super) fn local_stats(x: &HostValues, shape: &Shape, threads: &Threads) -> Pending<Vec<ChannelStats>> {
    done(with_values!(x, x => host::local_stats(x, shape, threads)))
}

pub(super) fn normalize(
    x: Source<'_>,
    residual: Option<&Tensor>,
    centering: &[Centering],
    of: Layer<'_>,
    (y, mask): (&mut HostValues, Option<&mut Mask>),
    threads: &Threads,
) -> Result<Pending<()>, Error> {
    let mask = mask.and_then(words_mut);
    let shape = x.shape();
    let Some(x) = x.tensor().and_then(host_values) else {
        with_values!(y, y => {
            let residual = residual.and_then(|tensor| values_like(y, tensor));
            host::normalize_in_place(y, shape, residual, centering, layer(of), mask, threads);
        });
        return Ok(done(()));
    };
    with_both!(x, y, x, y => {
        let residual = residual.and_then(|tensor| values_like(x, tensor));
        host::normalize((x, shape), residual, centering, layer(of), (y, mask), threads)
    })
    .map(done)
}

pub(super) fn local_gradient_sums(
    g: View<'_>,
    upstream: Upstream<'_>,
    normalization: &Normalization,
    of: Layer<'_>,
    threads: &Threads,
) -> Result<Pending<Vec<GradientSums>>, Error> {
    let misplaced = || super::misplaced(upstream.x.tensor);
    let g_values = host_values(g.tensor).ok_or_else(misplaced)?;
    let x = host_values(upstream.x.tensor).ok_or_else(misplaced)?;
    with_both!(g_values, x, values, x => {
        let g = host::GradOutput { values, shape: g.shape };
        host::local_gradient_sums(g, typed(upstream, x), normalization, layer(of), threads)
    })
    .map(done)
}

pub(super) fn grad_input(
    g: Source<'_>,
    upstream: Upstream<'_>,
    batch_statistics: bool,
    centering: &[GradCentering],
    of: Layer<'_>,
    (dx, grad_residual): (&mut HostValues, Option<&mut Storage>),
    threads: &Threads,
) -> Result<Pending<()>, Error> {
    let x = host_values(upstream.x.tensor).ok_or_else(|| super::misplaced(upstream.x.tensor))?;
    let mut grad_residual = match grad_residual {
        Some(Storage::Host(values)) => Some(values),
        _ => None,
    };
    let Some(g_values) = g.tensor().and_then(host_values) else {
        return with_values!(x, x => {
            let Some(dx) = same_type(x, dx) else { return Err(two_halves()) };
            let grad_residual = grad_residual.take().and_then(|values| same_type(x, values));
            let (upstream, targets) = (typed(upstream, x), (dx, grad_residual));
            host::grad_input_in_place(upstream, batch_statistics, centering, layer(of), targets, threads);
            Ok(done(()))
        });
    };
    with_both!(g_values, x, values, x => {
        let Some(dx) = same_type(x, dx) else { return Err(two_halves()) };
        let grad_residual = grad_residual.take().and_then(|values| same_type(x, values));
        let g = host::GradOutput { values, shape: g.shape() };
        let (upstream, targets) = (typed(upstream, x), (dx, grad_residual));
        host::grad_input(g, upstream, batch_statistics, centering, layer(of), targets, threads)
    })
    .map(done)
}

/// The values of a tensor in host memory.
fn host_values(tensor: &Tensor) -> Option<&HostValues> {
    match tensor.storage() {
        Storage::Host(values) => Some(values),
        Storage::Gpu(_) => None,
    }
}

/// The words of a mask in host memory.
pub(super) fn words(mask: &Mask) -> Option<&[u32]> {
    match mask {
        Mask::Host(words) => Some(words),
        Mask::Gpu(..) => None,
    }
}

/// The same of a mask that nobody else has yet.
pub(super) fn words_mut(mask: &mut Mask) -> Option<&mut [u32]> {
    match mask {
        Mask::Host(words) => Arc::get_mut(words),
        Mask::Gpu(..) => None,
    }
}

fn typed<'a, X: Element>(upstream: Upstream<'a>, x: &'a [X]) -> host::Upstream<'a, X> {
    let residual = upstream.residual.and_then(|tensor| values_like(x, tensor));
    let mask = upstream.mask.and_then(words);
    host::Upstream { x, shape: upstream.x.shape, residual, mask }
}

/// The values of a tensor in host memory if they are of the type of `like`.
fn values_like<'a, T: Element>(_: &[T], tensor: &'a Tensor) -> Option<&'a [T]> {
    slice(tensor)
}

/// The values of a tensor in host memory if they are of this type.
pub(super) fn slice<T: Element>(tensor: &Tensor) -> Option<&[T]> {
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
    slice_mut(values)
}

/// The vector of `values` if it is of this type.
pub(super) fn slice_mut<T: Element>(values: &mut HostValues) -> Option<&mut [T]> {
    match values {
        HostValues::F32(values) if T::DTYPE == DType::F32 => Some(bytemuck::cast_slice_mut(values)),
        HostValues::F16(values) if T::DTYPE == DType::F16 => Some(bytemuck::cast_slice_mut(values)),
        HostValues::BF16(values) if T::DTYPE == DType::BF16 => Some(bytemuck::cast_slice_mut(values)),
        _ => None,
    }
}
