//! Comparisons with the definition, and their tolerances.

use syncbn::stats::{GlobalStatistics, RunningStats};
use syncbn_reference as reference;
pub use syncbn_reference::bounds::ulp;

use crate::batch::Batch;

/// How far y may be from the definition, in ulp of the largest |y| of its channel.
///
/// Six roundings of half an ulp lie between x and y: x − pivot, inv_std, scale, their product,
/// shift and the last sum. The normalized values average to 0. So neither |bias| nor a half of the
/// largest |weight·(x − mean)·inv_std| exceeds the largest |y|. Together that is at most 6 ulp of
/// it. Sums in f32 along a tree add about one more from mean and variance.
pub const TOLERANCE_ULP: f64 = 8.0;

/// How far statistics may be from the definition, relative to the deviation or the variance:
/// sixteen half ulp of f32, for the few dozen roundings of random sign on the way from a value to
/// the sum of its tile and its rank.
pub const STATISTICS_TOLERANCE: f64 = reference::bounds::TOLERANCE;

/// The worst error of y in ulp of the largest |y| of its channel over all ranks, or what is wrong:
/// an error above `tolerance_ulp`, another number of values, or a NaN on one side alone.
pub fn compare(
    batches: &[Batch],
    found: &[Vec<f32>],
    expected: &[Vec<f64>],
    tolerance_ulp: f64,
) -> Result<f64, String> {
    let channels = batches[0].dims[1];
    let mut largest = vec![0f64; channels];
    for (batch, expected) in batches.iter().zip(expected) {
        for (index, y) in expected.iter().enumerate() {
            let largest = &mut largest[batch.channel(index)];
            *largest = largest.max(y.abs());
        }
    }
    let mut worst = 0f64;
    for (rank, ((batch, found), expected)) in batches.iter().zip(found).zip(expected).enumerate() {
        if found.len() != expected.len() {
            return Err(format!(
                "rank {rank} has {} values, expected {}",
                found.len(),
                expected.len()
            ));
        }
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let channel = batch.channel(index);
            let error = (f64::from(found) - expected).abs() / ulp(largest[channel]);
            if found.is_nan() && expected.is_nan() {
                continue;
            }
            if error.is_nan() || error > tolerance_ulp {
                return Err(format!(
                    "rank {rank} of dims {:?}, value {index} (channel {channel}): {found:e}, \
                    expected {expected:e}: {error:.2} ulp of {:e}, allowed {tolerance_ulp}",
                    batch.dims, largest[channel]
                ));
            }
            worst = worst.max(error);
        }
    }
    Ok(worst)
}

/// Whether the group's statistics are those of the definition.
pub fn compare_statistics(
    found: &GlobalStatistics,
    expected: &reference::BatchStatistics,
) -> Result<(), String> {
    for (channel, found) in found.channels().iter().enumerate() {
        let mean = expected.mean[channel];
        let var = expected.var_biased[channel];
        let mean_error = (found.mean - mean).abs();
        let var_error = (found.var_biased() - var).abs();
        // The definition's own rounding, of f64.
        let allowed_mean = STATISTICS_TOLERANCE * var.sqrt() + mean.abs() * f64::EPSILON;
        if found.count != expected.count
            || !(mean_error <= allowed_mean && var_error <= STATISTICS_TOLERANCE * var)
        {
            return Err(format!(
                "channel {channel}: {found:?}, expected {} values, {mean}, {var}",
                expected.count
            ));
        }
    }
    Ok(())
}

/// Whether running statistics are within rounding of `expected`, (mean, variance) per channel;
/// `deviation` is that of the batches, to which the error of a mean is relative.
pub fn compare_running(
    found: &RunningStats,
    expected: &reference::Running,
    deviation: f64,
) -> Result<(), String> {
    for (name, found, expected, scale) in [
        ("running_mean", &found.mean, &expected.mean, deviation),
        ("running_var", &found.var, &expected.var, 0.0),
    ] {
        for (channel, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let allowed = STATISTICS_TOLERANCE * (expected.abs() + scale);
            let error = (f64::from(found) - expected).abs();
            if error.is_nan() || error > allowed {
                return Err(format!(
                    "{name}[{channel}] is {found}, expected {expected} within {allowed:e}"
                ));
            }
        }
    }
    Ok(())
}

/// The worst error as a share of what is allowed at its index, or what is wrong.
pub fn worst_share(
    name: &str,
    found: &[f32],
    expected: &[f64],
    allowed: impl Fn(usize) -> f64,
) -> Result<f64, String> {
    if found.len() != expected.len() {
        return Err(format!("{name} has {} values, expected {}", found.len(), expected.len()));
    }
    let mut worst = 0f64;
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        let allowed = allowed(index);
        if error == 0.0 {
            continue;
        }
        // A NaN on either side is not within.
        let within = error <= allowed;
        if !within {
            return Err(format!(
                "{name}, value {index}: {found:e}, expected {expected:e} within {allowed:e}"
            ));
        }
        worst = worst.max(error / allowed);
    }
    Ok(worst)
}
