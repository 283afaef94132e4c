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

/// y = act(v). Where there is a mask, the bit of every address becomes 1 where v is above 0.
pub(crate) fn normalize<X: Element, Y: Element>(
    (x, shape): (&[X], &Shape),
    residual: Option<&[X]>,
    centering: &[Centering],
    layer: Layer<'_>,
    y: &mut [Y],
    mask: Option<&mut [u32]>,
) {
    normalize_with(shape, centering, layer, mask, |at, line| {
        let v = line.value(x[at], residual.map(|residual| residual[at]));
        y[at] = Y::from_f32(layer.epilogue.activated(v));
        v
    });
}

/// y = act(v) over x, which is of the same type.
pub(crate) fn normalize_in_place<Y: Element>(
    y: &mut [Y],
    shape: &Shape,
    residual: Option<&[Y]>,
    centering: &[Centering],
    layer: Layer<'_>,
    mask: Option<&mut [u32]>,
) {
    normalize_with(shape, centering, layer, mask, |at, line| {
        let v = line.value(y[at], residual.map(|residual| residual[at]));
        y[at] = Y::from_f32(layer.epilogue.activated(v));
        v
    });
}

/// Goes through all values; `write` writes one and tells its v.
fn normalize_with(
    shape: &Shape,
    centering: &[Centering],
    layer: Layer<'_>,
    mut mask: Option<&mut [u32]>,
    mut write: impl FnMut(usize, &Line) -> f32,
) {
    for (channel, center) in centering.iter().enumerate() {
        let line = Line::of(layer, center, channel);
        for at in addresses(shape, channel) {
            let v = write(at, &line);
            if let Some(mask) = &mut mask {
                mask[at / 32] |= u32::from(v > 0.0) << (at % 32);
            }
        }
    }
}

/// The upstream gradient, in a layout of its own.
#[derive(Clone, Copy)]
pub(crate) struct GradOutput<'a, G> {
    pub values: &'a [G],
    pub shape: &'a Shape,
}

/// What backward reads beside it: x, and what decides on the side of the activation, a mask or the residual.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'a, X> {
    pub x: &'a [X],
    pub shape: &'a Shape,
    pub residual: Option<&'a [X]>,
    pub mask: Option<&'a [u32]>,
}

impl<X: Element> Upstream<'_, X> {
    /// g before the activation, from grad_output.
    fn g(self, at: usize, grad_output: f32, line: &Line, epilogue: Epilogue) -> f32 {
        let is_above = || match self.mask {
            Some(mask) => (mask[at / 32] >> (at % 32)) & 1 != 0,
            None => line.value(self.x[at], self.residual.map(|residual| residual[at])) > 0.0,
        };
        if epilogue.activates() { epilogue.upstream(grad_output, is_above()) } else { grad_output }
    }
}

/// Local gradient sums of every channel.
pub(crate) fn local_gradient_sums<G: Element, X: Element>(
    g: GradOutput<'_, G>,
    upstream: Upstream<'_, X>,
    normalization: &Normalization,
    layer: Layer<'_>,
) -> Vec<GradientSums> {
    let centering = normalization.centering();
    let channel_sums = |(channel, &mean): (usize, &f64)| {
        let line = Line::of(layer, &centering[channel], channel);
        let pairs = addresses(g.shape, channel).zip(addresses(upstream.shape, channel));
        pairs.fold(GradientSums::EMPTY, |sums, (g_at, at)| {
            let g = f64::from(upstream.g(at, g.values[g_at].to_f32(), &line, layer.epilogue));
            let from_mean = f64::from(upstream.x[at].to_f32()) - mean;
            GradientSums { sum_dy: sums.sum_dy + g, sum_dy_xmu: sums.sum_dy_xmu + g * from_mean }
        })
    };
    normalization.mean.iter().enumerate().map(channel_sums).collect()
}

/// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), and g itself for the residual.
pub(crate) fn grad_input<G: Element, X: Element>(
    g: GradOutput<'_, G>,
    upstream: Upstream<'_, X>,
    batch_statistics: bool,
    centering: &[GradCentering],
    layer: Layer<'_>,
    (dx, mut grad_residual): (&mut [X], Option<&mut [X]>),
) {
    for (channel, center) in centering.iter().enumerate() {
        let gradient = ChannelGradient::of(upstream, batch_statistics, center, layer, channel);
        for (g_at, at) in addresses(g.shape, channel).zip(addresses(upstream.shape, channel)) {
            gradient.write(at, g.values[g_at].to_f32(), dx, grad_residual.as_deref_mut());
        }
    }
}

/// The same over grad_output, which is of the type and layout of x.
pub(crate) fn grad_input_in_place<X: Element>(
    upstream: Upstream<'_, X>,
    batch_statistics: bool,
    centering: &[GradCentering],
    layer: Layer<'_>,
    dx: &mut [X],
    mut grad_residual: Option<&mut [X]>,
) {
    for (channel, center) in centering.iter().enumerate() {
        let gradient = ChannelGradient::of(upstream, batch_statistics, center, layer, channel);
        for at in addresses(upstream.shape, channel) {
            let grad_output = dx[at].to_f32();
            gradient.write(at, grad_output, dx, grad_residual.as_deref_mut());
        }
    }
}

/// What the gradients of one channel's values have in common.
struct ChannelGradient<'a, X> {
    upstream: Upstream<'a, X>,
    center: &'a GradCentering,
    line: Line,
    epilogue: Epilogue,
    batch_statistics: bool,
}

impl<'a, X: Element> ChannelGradient<'a, X> {
    fn of(
        upstream: Upstream<'a, X>,
        batch_statistics: bool,
        center: &'a GradCentering,
        layer: Layer<'_>,
        channel: usize,
    ) -> Self {
        let line = Line::of(layer, &center.center, channel);
        Self { upstream, center, line, epilogue: layer.epilogue, batch_statistics }
    }

    /// Where the statistics are constants, x is left out, so that a value that is not finite keeps to itself.
    fn write(&self, at: usize, grad_output: f32, dx: &mut [X], grad_residual: Option<&mut [X]>) {
        let Centering { pivot, rest, .. } = self.center.center;
        let g = self.upstream.g(at, grad_output, &self.line, self.epilogue);
        let from_mean = if self.batch_statistics { (self.upstream.x[at].to_f32() - pivot) - rest } else { 0.0 };
        let pull = self.center.mean_dy + from_mean * self.center.projection;
        dx[at] = X::from_f32(self.line.scale * (g - pull));
        if let Some(grad_residual) = grad_residual {
            grad_residual[at] = X::from_f32(g);
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
