//! Whether what the process holds has stayed the same.

use crate::watch::Sample;

/// What is left out of the record: caches fill, and one device of each kind comes to be.
const WARM_UP: f64 = 0.1;

/// A quantity of a sample, and how it is called.
type Quantity = (&'static str, fn(&Sample) -> f64);

const QUANTITIES: [Quantity; 3] = [
    ("memory in MiB", |sample| sample.rss_kib / 1024.0),
    ("threads", |sample| sample.threads),
    ("open files", |sample| sample.files),
];

/// The quantity in a third of the record.
#[derive(Clone, Copy, Debug)]
struct Third {
    least: f64,
    median: f64,
    most: f64,
}

impl Third {
    fn of(samples: &[Sample], of: fn(&Sample) -> f64) -> Self {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self { least: at(0), median: at(values.len() / 2), most: at(last) }
    }
}

/// Prints each quantity, and returns an error for one that has grown.
///
/// After the first tenth, the record is cut in three. What grows at a steady rate has medians in
/// the first and the last third that differ by two thirds of all its growth, and in the first third
/// a range of one third of it. So a growth that is more than the range of the first third is a
/// leak, and less is within what the work itself takes and gives back.
pub fn judge(samples: &[Sample]) -> Result<(), Box<dyn std::error::Error>> {
    let end = samples.last().map_or(0.0, |sample| sample.second);
    let warm = samples.partition_point(|sample| sample.second < WARM_UP * end);
    let samples = &samples[warm..];
    let third = samples.len() / 3;
    if third < 10 {
        return Err("too short to judge: half a minute at least".into());
    }
    let mut grown = Vec::new();
    for (name, of) in QUANTITIES {
        let [first, second, last] =
            [&samples[..third], &samples[third..2 * third], &samples[2 * third..]]
                .map(|samples| Third::of(samples, of));
        let (growth, range) = (last.median - first.median, first.most - first.least);
        println!(
            "{name}: medians of the thirds {:.1}, {:.1}, {:.1}; first third {:.1} to {:.1}, \
             last {:.1} to {:.1}",
            first.median,
            second.median,
            last.median,
            first.least,
            first.most,
            last.least,
            last.most
        );
        if growth > range || growth.is_nan() {
            grown.push(format!("{name} grew by {growth:.1}, allowed: {range:.1}"));
        }
    }
    if grown.is_empty() { Ok(()) } else { Err(grown.join("; ").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rss_kib: impl Fn(f64) -> f64) -> Vec<Sample> {
        let sample = |second| Sample { second, rss_kib: rss_kib(second), threads: 3.0, files: 9.0 };
        (0..600).map(|second| sample(f64::from(second))).collect()
    }

    #[test]
    fn work_that_takes_and_gives_back_is_flat_and_a_leak_below_its_noise_per_minute_is_none() {
        let wave = |second: f64| 2e5 + 1e4 * (second / 7.0).sin();
        assert!(judge(&record(wave)).is_ok());
        assert!(judge(&record(|second| wave(second) + 100.0 * second)).is_err());
        assert!(judge(&record(|second| 2e5 + 1.0 * second)).is_err());
    }

    #[test]
    fn what_grows_in_the_warm_up_alone_is_flat() {
        assert!(judge(&record(|second| 1e5 + 1e3 * second.min(59.0))).is_ok());
    }

    #[test]
    fn a_short_record_is_not_judged() {
        assert!(judge(&record(|_| 1.0)[..20]).is_err());
    }
}
