//! The phases on host memory: for a rank without a GPU driver, and for a rank beside GPUs. Knows no
//! wgpu.
//!
//! Bound by memory: every phase reads and writes each value once, on all threads of a pool, with
//! the vector instructions that the processor turns out to have. Sums are f32 for a few values and
//! f64 beyond; outputs are computed as on a GPU, from pivot and rest in f32, and rounded once to
//! their storage type. Results have the same bits on any number of threads and on every instruction
//! set.

mod apply;
mod block_io;
mod channel_params;
mod convert;
mod fused;
mod gradient;
mod intrinsics;
mod reduce;
mod simd;
mod statistics;
mod threads;
mod traversal;

pub(crate) use fused::{BackwardRank, ForwardRank, backward, forward};
pub(crate) use intrinsics::prefer_large_pages;
pub(crate) use statistics::local_stats;
pub(crate) use threads::Threads;

use apply::{Affine, GradCoefficients, GradInput, Normalize, RUN_VALUES};
use block_io::{Gradients, Scratch};
use channel_params::ChannelParams;
use traversal::Traversal;

use crate::dtype::Element;
use crate::epilogue::Epilogue;
use crate::shape::Shape;
use crate::stats::{Centering, GradCentering, GradientSums, Normalization};

/// Bytes of results of all ranks from which on they are large. They are written with non-temporal
/// stores then: they would not stay in the caches until somebody reads them, and the memory that
/// they replace is not read first. And what is read is prefetched by software.
const LARGE_BYTES: usize = 4 << 20;

/// What a layer is on the host: parameters, (C) each, and how it ends.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub epilogue: Epilogue,
    /// Ranks of the host whose results are computed one after the other, each taken to have as
    /// many.
    pub ranks: usize,
}

impl Layer<'_> {
    /// Whether so many bytes of results of one rank, with those of the others, are large.
    fn is_large(self, bytes: usize) -> bool {
        bytes >= LARGE_BYTES / self.ranks.max(1)
    }

    /// The affine coefficients of a channel: pivot, scale = weight·inv_std and shift = bias −
    /// rest·scale.
    fn affine(self, center: &Centering, channel: usize) -> Affine {
        let scale =
            self.weight.map_or(1.0, |weight| weight[channel]) * (center.inv_std * center.unit);
        let shift = self.bias.map_or(0.0, |bias| bias[channel]) - center.rest / center.unit * scale;
        [center.pivot / center.unit, scale, shift]
    }

    fn affines<'c>(self, centering: impl IntoIterator<Item = &'c Centering>) -> Vec<Affine> {
        centering
            .into_iter()
            .enumerate()
            .map(|(channel, center)| self.affine(center, channel))
            .collect()
    }
}

/// y = act((x − pivot)·scale + shift + residual). Where there is a mask, of zeros, the bit of every
/// address becomes 1 where what enters the activation is above 0. Where there is no x, y is written
/// over it, and of the same type.
pub(crate) fn normalize<X: Element, Y: Element>(
    rank: ForwardRank<'_, X, Y>,
    centering: &[Centering],
    threads: &Threads,
) {
    let ForwardRank { x, shape, residual, layer, y, mask } = rank;
    if y.is_empty() {
        return;
    }
    let affine = layer.affines(centering);
    let params = ChannelParams::new(Traversal::of(shape), &affine);
    let bytes = size_of_val(y);
    // Each run has whole words of the mask to itself.
    let masks = mask.map(|mask| mask.chunks_mut(RUN_VALUES / 32));
    // From the end: what the sums read last is still in the caches.
    let tasks = y
        .chunks_mut(RUN_VALUES)
        .zip(side_by_side(masks))
        .enumerate()
        .collect::<Vec<_>>()
        .into_iter()
        .rev();
    threads.for_each(2 * bytes, tasks, |(i, (y, mask))| {
        let run = i * RUN_VALUES..i * RUN_VALUES + y.len();
        let (x, residual) =
            (x.map(|x| &x[run.start..]), residual.map(|residual| &residual[run.start..]));
        let task = Normalize { x, residual, y, mask, at: run.start };
        Scratch::lend(|scratch| task.run(&params, layer.epilogue, layer.is_large(bytes), scratch));
    });
}

/// The parts of something that may not be there, for ever `None` then.
fn side_by_side<T>(parts: Option<impl Iterator<Item = T>>) -> impl Iterator<Item = Option<T>> {
    let mut parts = parts;
    std::iter::repeat_with(move || parts.as_mut().and_then(Iterator::next))
}

/// The upstream gradient, in a layout of its own.
#[derive(Clone, Copy)]
pub(crate) struct GradOutput<'a, G> {
    pub values: &'a [G],
    pub shape: &'a Shape,
}

impl<'a, G: Element> GradOutput<'a, G> {
    /// In the order of an x.
    fn like(self, x: &Shape) -> Gradients<'a, G> {
        Gradients::new(self.values, self.shape, x)
    }
}

/// What backward reads beside it: x, and what decides on the side of the activation, a mask or the
/// residual.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'a, X> {
    pub x: &'a [X],
    pub shape: &'a Shape,
    pub residual: Option<&'a [X]>,
    pub mask: Option<&'a [u32]>,
}

impl<'a, X: Element> Upstream<'a, X> {
    fn with(self, epilogue: Epilogue) -> apply::Upstream<'a, X> {
        apply::Upstream { x: self.x, residual: self.residual, mask: self.mask, epilogue }
    }
}

/// Local gradient sums of every channel.
pub(crate) fn local_gradient_sums<G: Element, X: Element>(
    g: GradOutput<'_, G>,
    upstream: Upstream<'_, X>,
    normalization: &Normalization,
    layer: Layer<'_>,
    threads: &Threads,
) -> Vec<GradientSums> {
    let shape = upstream.shape;
    if upstream.x.is_empty() {
        return vec![GradientSums::EMPTY; shape.channels()];
    }
    let affine = layer.affines(&normalization.centering());
    let sums =
        gradient::sums(g.like(shape), upstream.with(layer.epilogue), shape, &affine, threads);
    let about_mean = |([sum_dy, sum_dy_x], rest): ([f64; 2], f64)| {
        GradientSums::from_pivot(sum_dy, sum_dy_x, rest)
    };
    sums.into_iter().zip(normalization.rest()).map(about_mean).collect()
}

/// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), and g itself for
/// the residual. Where there is no g, the gradient of x is written over it: it is of the type and
/// layout of x.
///
/// Where the statistics are constants, x is left out, so that a value that is not finite keeps to
/// itself.
pub(crate) fn grad_input<G: Element, X: Element>(
    rank: BackwardRank<'_, G, X>,
    centering: &[GradCentering],
    threads: &Threads,
) {
    let BackwardRank { g, upstream, layer, batch_statistics, dx, grad_residual } = rank;
    let dx = dx.unwrap_or_default();
    if dx.is_empty() {
        return;
    }
    let g = g.map(|g| g.like(upstream.shape));
    let coefficients = grad_coefficients(layer, 0, centering);
    let params = ChannelParams::new(Traversal::of(upstream.shape), &coefficients);
    let upstream = upstream.with(layer.epilogue);
    let bytes = size_of_val(dx);
    let residuals = side_by_side(grad_residual.map(|values| values.chunks_mut(RUN_VALUES)));
    let tasks =
        dx.chunks_mut(RUN_VALUES).zip(residuals).enumerate().collect::<Vec<_>>().into_iter().rev();
    threads.for_each(3 * bytes, tasks, |(i, (dx, grad_residual))| {
        let task = GradInput { g, upstream, dx, grad_residual, at: i * RUN_VALUES };
        Scratch::lend(|scratch| {
            task.run(&params, batch_statistics, layer.is_large(bytes), scratch)
        });
    });
}

/// The gradient coefficients of the channels from `first` on.
fn grad_coefficients(
    layer: Layer<'_>,
    first: usize,
    centering: &[GradCentering],
) -> Vec<GradCoefficients> {
    let coefficients = |(channel, of): (usize, &GradCentering)| {
        let [pivot, scale, shift] = layer.affine(&of.center, channel);
        let unit = of.center.unit;
        [pivot, scale, shift, of.center.rest / unit, of.mean_dy, of.projection * unit]
    };
    (first..).zip(centering).map(coefficients).collect()
}
