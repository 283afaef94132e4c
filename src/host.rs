//! The phases on host memory: for a rank without a GPU driver, and for a rank beside GPUs. Knows no wgpu.
//!
//! Sums are f64 over the whole rank, so that there is no tile to carry a rounding. Outputs are computed as on a GPU, from
//! pivot and rest in f32, and rounded once to their storage type.

use crate::dtype::Element;
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

/// y = (x − pivot)·scale + shift with scale = weight·inv_std, shift = bias − rest·scale.
pub(crate) fn normalize<X: Element, Y: Element>(
    x: &[X],
    shape: &Shape,
    centering: &[Centering],
    [weight, bias]: [Option<&[f32]>; 2],
    y: &mut [Y],
) {
    for (channel, center) in centering.iter().enumerate() {
        let scale = weight.map_or(1.0, |weight| weight[channel]) * center.inv_std;
        let shift = bias.map_or(0.0, |bias| bias[channel]) - center.rest * scale;
        for at in addresses(shape, channel) {
            y[at] = Y::from_f32((x[at].to_f32() - center.pivot) * scale + shift);
        }
    }
}

/// Local gradient sums of every channel, from the upstream gradient g, in a layout of its own, and x.
pub(crate) fn local_gradient_sums<G: Element, X: Element>(
    (g, g_shape): (&[G], &Shape),
    (x, shape): (&[X], &Shape),
    normalization: &Normalization,
) -> Vec<GradientSums> {
    let channel_sums = |(channel, &mean): (usize, &f64)| {
        let pairs = addresses(g_shape, channel).zip(addresses(shape, channel));
        pairs.fold(GradientSums::EMPTY, |sums, (g_at, x_at)| {
            let (g, x) = (f64::from(g[g_at].to_f32()), f64::from(x[x_at].to_f32()));
            GradientSums { sum_dy: sums.sum_dy + g, sum_dy_xmu: sums.sum_dy_xmu + g * (x - mean) }
        })
    };
    normalization.mean.iter().enumerate().map(channel_sums).collect()
}

/// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection), in the layout of x.
///
/// Where the statistics are constants, x is left out, so that a value that is not finite keeps to itself.
pub(crate) fn grad_input<G: Element, X: Element>(
    (g, g_shape): (&[G], &Shape),
    (x, shape): (&[X], &Shape),
    batch_statistics: bool,
    centering: &[GradCentering],
    weight: Option<&[f32]>,
    dx: &mut [X],
) {
    for (channel, of) in centering.iter().enumerate() {
        let scale = weight.map_or(1.0, |weight| weight[channel]) * of.center.inv_std;
        for (g_at, x_at) in addresses(g_shape, channel).zip(addresses(shape, channel)) {
            let from_mean = match batch_statistics {
                true => (x[x_at].to_f32() - of.center.pivot) - of.center.rest,
                false => 0.0,
            };
            dx[x_at] = X::from_f32(scale * (g[g_at].to_f32() - (of.mean_dy + from_mean * of.projection)));
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
