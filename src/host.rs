//! The phases on host memory: for a rank without a GPU driver, and for a rank beside GPUs. Knows no wgpu.
//!
//! Sums are f64 over the whole rank, so that there is no tile to carry a rounding. Outputs are computed as on a GPU, from
//! pivot and rest in f32, and rounded once to their storage type.

use crate::dtype::Element;
use crate::epilogue::Epilogue;
use crate::shape::Shape;
use crate::stats::{Centering, ChannelStats, GradCentering, GradientSums, Normalization};

/// Local statistics of every channel of x.
pub(crate) fn local_stats<X: Element>(x: &[X], shape: &Shape) -> Vec<ChannelStats> {
    (0..shape.channels()).map(|channel| channel_stats(x, shape, channel)).collect()
}

fn channel_stats<X: Element>(x: &[X], shape: &Shape, channel: usize) -> ChannelStats {
    let count = shape.values_per_channel();
    let values = || addresses(shape, channel).map(|at| x[at].to_f32());
    if values().any(|x| !x.is_finite()) {
        return ChannelStats::not_finite(count);
    }
    let Some(first) = values().next().map(f64::from) else { return ChannelStats::EMPTY };
    // Two passes: about the first value for the mean, about the mean for the squares, so that an outlying first value
    // costs nothing.
    let mean = first + values().map(|x| f64::from(x) - first).sum::<f64>() / count as f64;
    let (sum, squares) =
        values().map(|x| f64::from(x) - mean).fold((0.0, 0.0), |(sum, squares), d| (sum + d, squares + d * d));
    ChannelStats::from_sums(count, mean, sum, squares)
}

/// What a layer is on the host: parameters, (C) each, and how it ends.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub epilogue: Epilogue,
}

/// v = (x − pivot)·scale + shift, plus the residual: what enters the activation.
struct Line {
    pivot: f32,
    scale: f32,
    shift: f32,
}

impl Line {
    /// scale = weight·inv_std, shift = bias − rest·scale.
    fn of(layer: Layer<'_>, center: &Centering, channel: usize) -> Self {
        let scale = layer.weight.map_or(1.0, |weight| weight[channel]) * center.inv_std;
        let shift = layer.bias.map_or(0.0, |bias| bias[channel]) - center.rest * scale;
        Self { pivot: center.pivot, scale, shift }
    }

    fn value<X: Element>(&self, x: X, residual: Option<X>) -> f32 {
        let normalized = (x.to_f32() - self.pivot) * self.scale + self.shift;
        residual.map_or(normalized, |residual| normalized + residual.to_f32())
    }
}

/// y = act(v).
pub(crate) fn normalize<X: Element, Y: Element>(
    (x, shape): (&[X], &Shape),
    residual: Option<&[X]>,
    centering: &[Centering],
    layer: Layer<'_>,
    y: &mut [Y],
) {
    for (channel, center) in centering.iter().enumerate() {
        let line = Line::of(layer, center, channel);
        for at in addresses(shape, channel) {
            let v = line.value(x[at], residual.map(|residual| residual[at]));
            y[at] = Y::from_f32(layer.epilogue.activated(v));
        }
    }
}

/// What backward reads: the upstream gradient in a layout of its own, x, and the residual where it decides on v.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'a, G, X> {
    pub g: &'a [G],
    pub g_shape: &'a Shape,
    pub x: &'a [X],
    pub shape: &'a Shape,
    pub residual: Option<&'a [X]>,
}

impl<G: Element, X: Element> Upstream<'_, G, X> {
    /// (address of x, g before the activation, x) of every value of a channel.
    fn values(self, channel: usize, line: Line, epilogue: Epilogue) -> impl Iterator<Item = (usize, f32, f32)> {
        let pairs = addresses(self.g_shape, channel).zip(addresses(self.shape, channel));
        pairs.map(move |(g_at, at)| {
            let g = self.g[g_at].to_f32();
            let v = || line.value(self.x[at], self.residual.map(|residual| residual[at]));
            let g = if epilogue.activates() { epilogue.upstream(g, v()) } else { g };
            (at, g, self.x[at].to_f32())
        })
    }
}

/// Local gradient sums of every channel.
pub(crate) fn local_gradient_sums<G: Element, X: Element>(
    upstream: Upstream<'_, G, X>,
    normalization: &Normalization,
    layer: Layer<'_>,
) -> Vec<GradientSums> {
    let centering = normalization.centering();
    let channel_sums = |(channel, &mean): (usize, &f64)| {
        let values = upstream.values(channel, Line::of(layer, &centering[channel], channel), layer.epilogue);
        values.fold(GradientSums::EMPTY, |sums, (_, g, x)| {
            let (g, x) = (f64::from(g), f64::from(x));
            GradientSums { sum_dy: sums.sum_dy + g, sum_dy_xmu: sums.sum_dy_xmu + g * (x - mean) }
        })
    };
    normalization.mean.iter().enumerate().map(channel_sums).collect()
}

/// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), and g itself for the residual.
///
/// Where the statistics are constants, x is left out, so that a value that is not finite keeps to itself.
pub(crate) fn grad_input<G: Element, X: Element>(
    upstream: Upstream<'_, G, X>,
    batch_statistics: bool,
    centering: &[GradCentering],
    layer: Layer<'_>,
    dx: &mut [X],
    mut grad_residual: Option<&mut [X]>,
) {
    for (channel, of) in centering.iter().enumerate() {
        let line = Line::of(layer, &of.center, channel);
        let scale = line.scale;
        for (at, g, x) in upstream.values(channel, line, layer.epilogue) {
            let from_mean = if batch_statistics { (x - of.center.pivot) - of.center.rest } else { 0.0 };
            dx[at] = X::from_f32(scale * (g - (of.mean_dy + from_mean * of.projection)));
            if let Some(grad_residual) = &mut grad_residual {
                grad_residual[at] = X::from_f32(g);
            }
        }
    }
}

/// Where the values of a channel lie, sample by sample.
fn addresses(shape: &Shape, channel: usize) -> impl Iterator<Item = usize> {
    let (strides, inner) = (shape.strides(), shape.spatial_len());
    (0..shape.batch()).flat_map(move |sample| {
        let start = sample * strides.sample + channel * strides.channel;
        (0..inner).map(move |position| start + position * strides.inner)
    })
}
