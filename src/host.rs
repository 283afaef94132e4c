//! The phases on host memory: for a rank without a GPU driver, and for a rank beside GPUs. Knows no wgpu.
//!
//! Sums are f64 over the whole rank, so that there is no tile to carry a rounding. The output is computed as on a GPU, from
//! pivot and rest in f32.

use crate::shape::Shape;
use crate::stats::{Centering, ChannelStats, GradCentering, GradientSums, Normalization};

/// Local statistics of every channel of x, (N, C, L).
pub(crate) fn local_stats(x: &[f32], shape: &Shape) -> Vec<ChannelStats> {
    (0..shape.channels()).map(|channel| channel_stats(x, shape, channel)).collect()
}

fn channel_stats(x: &[f32], shape: &Shape, channel: usize) -> ChannelStats {
    let values = || channel_runs(shape, channel).flat_map(|run| x[run].iter().copied());
    if values().any(|x| !x.is_finite()) {
        return ChannelStats::not_finite(shape.values_per_channel());
    }
    let Some(first) = values().next().map(f64::from) else { return ChannelStats::EMPTY };
    // Two passes: about the first value for the mean, about the mean for the squares, so that an outlying first value costs nothing.
    let count = shape.values_per_channel();
    let mean = first + values().map(|x| f64::from(x) - first).sum::<f64>() / count as f64;
    let (sum, squares) =
        values().map(|x| f64::from(x) - mean).fold((0.0, 0.0), |(sum, squares), d| (sum + d, squares + d * d));
    ChannelStats::from_sums(count, mean, sum, squares)
}

/// y = (x − pivot)·scale + shift with scale = weight·inv_std, shift = bias − rest·scale.
pub(crate) fn normalize(
    x: &[f32],
    shape: &Shape,
    centering: &[Centering],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    for (channel, center) in centering.iter().enumerate() {
        let scale = weight.map_or(1.0, |weight| weight[channel]) * center.inv_std;
        let shift = bias.map_or(0.0, |bias| bias[channel]) - center.rest * scale;
        for run in channel_runs(shape, channel) {
            for (y, x) in y[run.clone()].iter_mut().zip(&x[run]) {
                *y = (x - center.pivot) * scale + shift;
            }
        }
    }
}

/// Local gradient sums of every channel, from the upstream gradient g and x, (N, C, L) each.
pub(crate) fn local_gradient_sums(
    g: &[f32],
    x: &[f32],
    shape: &Shape,
    normalization: &Normalization,
) -> Vec<GradientSums> {
    let channel_sums = |(channel, &mean): (usize, &f64)| {
        let pairs = channel_runs(shape, channel).flat_map(|run| g[run.clone()].iter().zip(&x[run]));
        pairs.fold(GradientSums::EMPTY, |sums, (&g, &x)| {
            let (g, x) = (f64::from(g), f64::from(x));
            GradientSums { sum_dy: sums.sum_dy + g, sum_dy_xmu: sums.sum_dy_xmu + g * (x - mean) }
        })
    };
    normalization.mean.iter().enumerate().map(channel_sums).collect()
}

/// grad_input = weight·inv_std·(g − mean_dy − ((x − pivot) − rest)·projection).
///
/// Where the statistics are constants, x is left out, so that a value that is not finite keeps to itself.
pub(crate) fn grad_input(
    g: &[f32],
    x: &[f32],
    shape: &Shape,
    batch_statistics: bool,
    centering: &[GradCentering],
    weight: Option<&[f32]>,
    dx: &mut [f32],
) {
    for (channel, of) in centering.iter().enumerate() {
        let scale = weight.map_or(1.0, |weight| weight[channel]) * of.center.inv_std;
        for run in channel_runs(shape, channel) {
            let pairs = g[run.clone()].iter().zip(&x[run.clone()]);
            for (dx, (g, x)) in dx[run].iter_mut().zip(pairs) {
                let from_mean = if batch_statistics { (x - of.center.pivot) - of.center.rest } else { 0.0 };
                *dx = scale * (g - (of.mean_dy + from_mean * of.projection));
            }
        }
    }
}

/// The index ranges of one channel, one per sample.
fn channel_runs(shape: &Shape, channel: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (channels, inner) = (shape.channels(), shape.spatial_len());
    (0..shape.batch()).map(move |sample| {
        let start = (sample * channels + channel) * inner;
        start..start + inner
    })
}
