//! The steps on the host: the storage types found at run time become types of the compiler.

mod double;
mod fused;

pub(super) use double::{double_gradients, double_sums};
pub(crate) use fused::{backward_exact, backward_fused, forward_exact, forward_fused};

use crate::dtype::{DType, Element, with_element};
use crate::engine::{BackwardRank, ForwardRank, Layer, Mask};
use crate::error::{ArgumentError, Error};
use crate::host::{self, ChannelRange, Threads};
use crate::stats::{
    Centering, GradCentering, GradientSums, GridParams, Moments, Normalization, ValueRange,
};
use crate::tensor::Tensor;

/// Runs an expression with the types of two storage types that go together: one type, or f32 with
/// another.
macro_rules! with_both {
    ($a:expr, $b:expr, $X:ident, $Y:ident => $body:expr) => {
        match ($a, $b) {
            (DType::F32, other) => {
                type $X = f32;
                with_element!(other, $Y => Ok($body))
            }
            (other, DType::F32) => {
                type $Y = f32;
                with_element!(other, $X => Ok($body))
            }
            (DType::F16, DType::F16) => {
                type $X = half::f16;
                type $Y = half::f16;
                Ok($body)
            }
            (DType::BF16, DType::BF16) => {
                type $X = half::bf16;
                type $Y = half::bf16;
                Ok($body)
            }
            // The checks of the layer exclude it.
            (found, other) => {
                let argument = "x".to_owned();
                let expected = other.to_string();
                Err(Error::from(ArgumentError::DType { argument, found, expected }))
            }
        }
    };
}

/// The values of a tensor in host memory: of none elsewhere.
fn values<T: Element>(tensor: &Tensor) -> &[T] {
    tensor.as_slice().unwrap_or_default()
}

fn values_mut<T: Element>(tensor: &mut Tensor) -> &mut [T] {
    tensor.as_mut_slice().unwrap_or_default()
}

fn layer(layer: Layer<'_>) -> host::Layer<'_> {
    host::Layer {
        weight: layer.weight.map(values),
        bias: layer.bias.map(values),
        epilogue: layer.epilogue,
        ranks: layer.host_ranks,
    }
}

fn forward<'r, X: Element, Y: Element>(
    rank: &'r mut ForwardRank<'_>,
) -> host::ForwardRank<'r, X, Y> {
    host::ForwardRank {
        x: rank.x.map(values),
        shape: &rank.shape,
        residual: rank.residual.map(values),
        layer: layer(rank.layer),
        y: rank.y.as_deref_mut().map(values_mut).unwrap_or_default(),
        mask: rank.mask.as_mut().and_then(Mask::words_mut),
    }
}

/// Of a pass in place, where g lies in `grad_input`, g is left out.
fn backward<'r, G: Element, X: Element>(
    rank: &'r mut BackwardRank<'_>,
) -> host::BackwardRank<'r, G, X> {
    host::BackwardRank {
        g: rank.g.map(|tensor| host::GradOutput { values: values(tensor), shape: &rank.g_shape }),
        upstream: upstream(rank.x, &rank.shape, rank.residual, rank.mask.as_ref()),
        layer: layer(rank.layer),
        batch_statistics: rank.depends_on_batch,
        dx: rank.grad_input.as_deref_mut().map(values_mut),
        grad_residual: rank.grad_residual.as_deref_mut().map(values_mut),
    }
}

fn upstream<'a, X: Element>(
    x: &'a Tensor,
    shape: &'a crate::shape::Shape,
    residual: Option<&'a Tensor>,
    mask: Option<&'a Mask>,
) -> host::Upstream<'a, X> {
    host::Upstream {
        x: values(x),
        shape,
        residual: residual.map(values),
        mask: mask.and_then(Mask::words),
    }
}

pub(super) fn statistics(rank: &ForwardRank<'_>, threads: &Threads) -> Vec<Moments> {
    let Some(x) = rank.x() else { return Vec::new() };
    with_element!(x.dtype(), X => host::local_stats(values::<X>(x), &rank.shape, threads))
}

pub(super) fn ranges(rank: &ForwardRank<'_>, threads: &Threads) -> Vec<ValueRange> {
    let Some(x) = rank.x() else { return Vec::new() };
    with_element!(x.dtype(), X => {
        host::local_ranges(values::<X>(x), &rank.shape, ChannelRange::All(threads))
    })
}

pub(super) fn integers(
    rank: &ForwardRank<'_>,
    grids: &[GridParams],
    rests: bool,
    threads: &Threads,
) -> Vec<[i128; 2]> {
    let Some(x) = rank.x() else { return Vec::new() };
    with_element!(x.dtype(), X => {
        host::local_integers(values::<X>(x), &rank.shape, grids, rests, ChannelRange::All(threads))
    })
}

/// The inputs of the gradient sums of a rank whose gradients arrive in `g`.
fn gradient<'r, G: Element, X: Element>(
    rank: &'r BackwardRank<'_>,
    g: &'r Tensor,
) -> host::GradientRank<'r, G, X> {
    host::GradientRank {
        g: host::GradOutput { values: values::<G>(g), shape: &rank.g_shape },
        upstream: upstream(rank.x, &rank.shape, rank.residual, rank.mask.as_ref()),
        layer: layer(rank.layer),
    }
}

pub(super) fn gradient_ranges(
    rank: &BackwardRank<'_>,
    normalization: &Normalization,
    threads: &Threads,
) -> Result<Vec<ValueRange>, Error> {
    let Some(g) = rank.g() else { return Ok(Vec::new()) };
    with_both!(g.dtype(), rank.x.dtype(), G, X => {
        gradient::<G, X>(rank, g).ranges(normalization, ChannelRange::All(threads))
    })
}

pub(super) fn gradient_integers(
    rank: &BackwardRank<'_>,
    normalization: &Normalization,
    grids: [&[GridParams]; 2],
    threads: &Threads,
) -> Result<Vec<[i128; 2]>, Error> {
    let Some(g) = rank.g() else { return Ok(Vec::new()) };
    with_both!(g.dtype(), rank.x.dtype(), G, X => {
        gradient::<G, X>(rank, g).integers(normalization, grids, ChannelRange::All(threads))
    })
}

pub(super) fn normalize(
    rank: &mut ForwardRank<'_>,
    centering: &[Centering],
    threads: &Threads,
) -> Result<(), Error> {
    let Some(y) = rank.y.as_deref().map(Tensor::dtype) else { return Ok(()) };
    let x = rank.x.map_or(y, Tensor::dtype);
    with_both!(x, y, X, Y => host::normalize(forward::<X, Y>(rank), centering, threads))
}

pub(super) fn gradient_sums(
    rank: &BackwardRank<'_>,
    normalization: &Normalization,
    threads: &Threads,
) -> Result<Vec<GradientSums>, Error> {
    let Some(g) = rank.g() else { return Ok(Vec::new()) };
    with_both!(g.dtype(), rank.x.dtype(), G, X => {
        let g = host::GradOutput { values: values::<G>(g), shape: &rank.g_shape };
        let upstream = upstream::<X>(rank.x, &rank.shape, rank.residual, rank.mask.as_ref());
        host::local_gradient_sums(g, upstream, normalization, layer(rank.layer), threads)
    })
}

pub(super) fn input_gradients(
    rank: &mut BackwardRank<'_>,
    centering: &[GradCentering],
    threads: &Threads,
) -> Result<(), Error> {
    if !rank.writes_activations() {
        return Ok(());
    }
    // One pass writes both; a gradient of x that nobody wants goes nowhere.
    let mut unwanted = rank.grad_input.is_none().then(|| rank.x.zeros_like()).transpose()?;
    let x = rank.x.dtype();
    with_both!(rank.g.map_or(x, Tensor::dtype), x, G, X => {
        let mut typed = backward::<G, X>(rank);
        typed.dx = typed.dx.or(unwanted.as_mut().map(values_mut));
        host::grad_input(typed, centering, threads)
    })
}
