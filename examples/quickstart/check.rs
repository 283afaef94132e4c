//! How far one result is from another, and from the definition in f64.

use syncbn_reference::{self as reference, Affine, RankBatch, ReferenceError};

use crate::batch::{Batch, CHANNELS};
use crate::pass::Pass;

/// The layer's aim for y: at most this many units in the last place (f32) of the channel's largest
/// |y| from the definition.
pub const MAX_ULPS: f64 = 8.0;
/// And so two results may be this far from each other: the definition can lie between them.
pub const MAX_ULPS_BETWEEN: f64 = 2.0 * MAX_ULPS;

/// Outputs of the whole batch and the statistics behind them, in f64 so that any two can be
/// compared.
#[derive(Debug)]
pub struct Outcome {
    /// (N, 3, H, W).
    y: Vec<f64>,
    /// H·W.
    plane: usize,
    mean: Vec<f64>,
    var_biased: Vec<f64>,
}

/// The largest differences between two outcomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    pub y: f64,
    /// The same in units of the last place (f32) of the channel's largest |y|.
    pub y_ulps: f64,
    pub mean: f64,
    /// As a share of the variance.
    pub variance: f64,
}

impl Outcome {
    /// The textbook result for the whole batch.
    pub fn by_definition(batch: &Batch, eps: f64) -> Result<Self, ReferenceError> {
        let values: Vec<f64> =
            batch.values(&(0..batch.photos())).iter().map(|&x| f64::from(x)).collect();
        let dims = batch.dims(batch.photos());
        let input = RankBatch { dims: &dims, values: &values };
        let forward = reference::forward_train(&[input], Affine::default(), eps)?;
        Ok(Self {
            y: forward.outputs.concat(),
            plane: batch.plane(),
            mean: forward.statistics.mean,
            var_biased: forward.statistics.var_biased,
        })
    }

    /// What a pass over the whole batch computed.
    pub fn of(pass: &Pass, batch: &Batch) -> Self {
        let global = pass.global();
        Self {
            y: pass.y.iter().map(|&y| f64::from(y)).collect(),
            plane: batch.plane(),
            mean: global.iter().map(|channel| channel.mean).collect(),
            var_biased: global.iter().map(|channel| channel.var_biased()).collect(),
        }
    }

    /// The largest differences from `expected`, an outcome of the same batch.
    pub fn difference(&self, expected: &Self) -> Difference {
        let by_channel = (0..CHANNELS).map(|channel| {
            let pairs = self.channel(channel).zip(expected.channel(channel));
            let y = largest(pairs.map(|(found, expected)| (found - expected).abs()));
            let scale = largest(expected.channel(channel).map(f64::abs));
            let (mean, var) = (expected.mean[channel], expected.var_biased[channel]);
            Difference {
                y,
                y_ulps: ratio(y, ulp(scale)),
                mean: (self.mean[channel] - mean).abs(),
                variance: ratio((self.var_biased[channel] - var).abs(), var),
            }
        });
        let by_channel: Vec<Difference> = by_channel.collect();
        let farthest = |quantity: fn(&Difference) -> f64| largest(by_channel.iter().map(quantity));
        Difference {
            y: farthest(|d| d.y),
            y_ulps: farthest(|d| d.y_ulps),
            mean: farthest(|d| d.mean),
            variance: farthest(|d| d.variance),
        }
    }

    /// y of one channel in all photos.
    fn channel(&self, channel: usize) -> impl Iterator<Item = f64> {
        self.y.chunks(self.plane).skip(channel).step_by(CHANNELS).flatten().copied()
    }
}

/// The largest of `values`, none of which is negative. NaN counts as infinite, or it would hide in
/// every comparison.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values
        .fold(0.0, |largest, value| if value.is_nan() { f64::INFINITY } else { largest.max(value) })
}

/// `difference / unit`, and 0 where there is no difference, also from a channel that is zero
/// throughout.
fn ratio(difference: f64, unit: f64) -> f64 {
    if difference == 0.0 { 0.0 } else { difference / unit }
}

/// The distance from `value` to the next larger f32.
fn ulp(value: f64) -> f64 {
    let value = value as f32;
    f64::from(value.next_up()) - f64::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two photos of two pixels.
    fn outcome() -> Outcome {
        let y = [-1.0, 1.0, 0.5, -0.5, 0.0, 0.0, 1.0, -1.0, 0.25, -0.25, 0.0, 0.0];
        Outcome {
            y: y.to_vec(),
            plane: 2,
            mean: vec![10.0, 20.0, 30.0],
            var_biased: vec![4.0, 2.0, 0.0],
        }
    }

    #[test]
    fn equal_outcomes_do_not_differ_even_in_a_channel_of_zeros() {
        let none = Difference { y: 0.0, y_ulps: 0.0, mean: 0.0, variance: 0.0 };
        assert_eq!(outcome().difference(&outcome()), none);
    }

    #[test]
    fn a_difference_is_found_in_every_photo_and_measured_by_its_channel() {
        let mut found = outcome();
        found.y[9] += f64::from(f32::EPSILON); // the second photo's second channel, largest |y| 0.5
        found.mean[1] += 0.5;
        found.var_biased[0] += 1.0;
        let expected =
            Difference { y: f64::from(f32::EPSILON), y_ulps: 2.0, mean: 0.5, variance: 0.25 };
        assert_eq!(found.difference(&outcome()), expected);
    }

    #[test]
    fn nan_is_the_largest_difference() {
        let mut found = outcome();
        found.y[3] = f64::NAN;
        assert_eq!(found.difference(&outcome()).y, f64::INFINITY);
    }
}
