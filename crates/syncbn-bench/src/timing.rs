//! Owns the arithmetic of repeated measurements.

use std::time::Duration;

/// Times of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// On the devices, by their own clocks; `None` where they have none.
    pub device: Option<Duration>,
    /// From the call until every device was done.
    pub wall: Duration,
}

/// Median and quartiles of some numbers, and the least of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Samples {
    pub least: f64,
    pub lower: f64,
    pub median: f64,
    pub upper: f64,
}

impl Samples {
    /// Of times, in milliseconds.
    pub fn of(times: impl Iterator<Item = Duration>) -> Self {
        Self::of_numbers(times.map(|time| time.as_secs_f64() * 1e3))
    }

    /// Of any numbers; NaN where there are none.
    pub fn of_numbers(numbers: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.collect();
        sorted.sort_by(f64::total_cmp);
        let [least, lower, median, upper] =
            [0.0, 0.25, 0.5, 0.75].map(|share| quantile(&sorted, share));
        Self { least, lower, median, upper }
    }
}

/// The quantile at `share` of sorted numbers, interpolated between two of them.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    match (sorted.get(place.floor() as usize), sorted.get(place.ceil() as usize)) {
        (Some(below), Some(above)) => below + (above - below) * place.fract(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_quartiles_are_those_of_the_sorted_numbers() {
        let samples = Samples::of_numbers([5.0, 1.0, 4.0, 2.0, 3.0].into_iter());
        assert_eq!(samples, Samples { least: 1.0, lower: 2.0, median: 3.0, upper: 4.0 });
        let even = Samples::of_numbers([4.0, 1.0, 3.0, 2.0].into_iter());
        assert_eq!(even, Samples { least: 1.0, lower: 1.75, median: 2.5, upper: 3.25 });
        assert!(Samples::of_numbers(std::iter::empty()).median.is_nan());
    }

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        let times = [3, 3, 900, 3, 4].map(Duration::from_millis);
        assert_eq!(Samples::of(times.into_iter()).median, 3.0);
    }
}
