//! The phases on host memory: for a rank without a GPU driver, and for a rank beside GPUs. Knows no wgpu.
//!
//! Sums are f64 over the whole rank, so that there is no tile to carry a rounding. The output is computed as on a GPU, from
//! pivot and rest in f32.

use crate::shape::Shape;
use crate::stats::{Centering, ChannelStats};

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

/// The index ranges of one channel, one per sample.
fn channel_runs(shape: &Shape, channel: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (channels, inner) = (shape.channels(), shape.spatial_len());
    (0..shape.batch()).map(move |sample| {
        let start = (sample * channels + channel) * inner;
        start..start + inner
    })
}
