//! Whether what the process holds has stayed the same.

use crate::watch::Sample;

/// The part of the record that is left out: caches fill, and one device of each kind is opened.
const WARM_UP: f64 = 0.1;

/// Blocks of a third. Their medians are far enough apart to count as independent: a device, a
/// training and a fault last for seconds, a block of half an hour for 54.
const BLOCKS: usize = 10;
/// By how many standard deviations of a difference of two levels a step from one third to the next
/// is growth: noise alone makes one such step in 700.
const DEVIATIONS: f64 = 3.0;

/// A quantity of a sample.
struct Quantity {
    name: &'static str,
    of: fn(&Sample) -> f64,
    /// The least step that counts, where the record has no noise.
    least: f64,
}

const QUANTITIES: [Quantity; 3] = [
    // An allocator takes 128 KiB at a time.
    Quantity { name: "memory in MiB", of: |sample| sample.rss_kib / 1024.0, least: 0.125 },
    Quantity { name: "threads", of: |sample| sample.threads, least: 0.5 },
    Quantity { name: "open files", of: |sample| sample.files, least: 0.5 },
];

/// The course of a quantity over a record.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// The level of each third: the mean of the medians of its blocks.
    levels: [f64; 3],
    /// The step from one third to the next that noise alone may make.
    allowed: f64,
}

impl Course {
    fn of(samples: &[Sample], quantity: &Quantity) -> Self {
        let third = samples.len() / 3;
        let thirds = [&samples[..third], &samples[third..2 * third], &samples[2 * third..]];
        let blocks = thirds.map(|samples| blocks(samples, quantity.of));
        let levels = blocks.map(|blocks| blocks.iter().sum::<f64>() / BLOCKS as f64);
        // Neighbouring blocks differ by twice the variance of one, and hardly by what grows over
        // the whole record (von Neumann's estimate).
        let squares = blocks.iter().flat_map(|blocks| blocks.windows(2));
        let squares: f64 = squares.map(|pair| (pair[1] - pair[0]).powi(2)).sum();
        let variance = squares / (2 * 3 * (BLOCKS - 1)) as f64;
        let noise = DEVIATIONS * (2.0 * variance / BLOCKS as f64).sqrt();
        Self { levels, allowed: noise.max(quantity.least) }
    }

    /// Whether it grows in both steps, or twice as much as noise may in the last.
    fn grows(&self) -> bool {
        let [first, second, last] = self.levels;
        let steps = [second - first, last - second];
        let is_growth = |step: f64, allowed: f64| step > allowed || step.is_nan();
        is_growth(steps[1], self.allowed)
            && (is_growth(steps[0], self.allowed) || is_growth(steps[1], 2.0 * self.allowed))
    }
}

/// The medians of the blocks of a third.
fn blocks(samples: &[Sample], of: fn(&Sample) -> f64) -> [f64; BLOCKS] {
    std::array::from_fn(|block| {
        let at = |block: usize| block * samples.len() / BLOCKS;
        let mut values: Vec<f64> = samples[at(block)..at(block + 1)].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    })
}

/// Prints each quantity, and returns an error for one that has grown.
///
/// After the first tenth, the record is cut in three. A leak grows by as much in each third. A
/// cache that fills grows less and less: in the measured record (`docs/data/soak.csv`) memory is at
/// 219, 228 and 227 MiB, and noise alone may make a step of 5.7. So what grows in both steps is a
/// leak, and what grows twice as much as that in the last step alone. In that record a leak of 0.8
/// MiB per minute is one, and so is one file in ten minutes.
pub fn judge(samples: &[Sample]) -> Result<(), Box<dyn std::error::Error>> {
    let end = samples.last().map_or(0.0, |sample| sample.second);
    let warm = samples.partition_point(|sample| sample.second < WARM_UP * end);
    let samples = &samples[warm..];
    if samples.len() < 3 * BLOCKS {
        return Err("too short to judge: half a minute at least".into());
    }
    let mut grown = Vec::new();
    for quantity in &QUANTITIES {
        let course = Course::of(samples, quantity);
        let Course { levels: [first, second, last], allowed } = course;
        let name = quantity.name;
        println!(
            "{name}: {first:.1}, {second:.1}, {last:.1} in the thirds, by chance ±{allowed:.1}"
        );
        if course.grows() {
            grown.push(format!(
                "{name} grew from {first:.1} to {second:.1} and {last:.1}, by chance at most \
                 {allowed:.1} each"
            ));
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

    /// The record of 30 minutes in `docs/data`, with a leak planted.
    fn measured(leak: impl Fn(&mut Sample)) -> Vec<Sample> {
        let rows = include_str!("../../../../../docs/data/soak.csv").lines();
        let rows = rows.filter(|row| row.starts_with(|first: char| first.is_ascii_digit()));
        let sample = |row: &str| {
            let numbers = row.split(',').map(|number| number.parse().expect("a number"));
            let numbers: Vec<f64> = numbers.collect();
            let [second, rss_kib, threads, files, ..] = numbers[..] else { panic!("{row}") };
            let mut sample = Sample { second, rss_kib, threads, files };
            leak(&mut sample);
            sample
        };
        rows.map(sample).collect()
    }

    /// The quantities that are reported to have grown.
    fn grown(leak: impl Fn(&mut Sample)) -> String {
        judge(&measured(leak)).err().map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn the_measured_record_is_flat_and_with_a_planted_leak_it_is_not() {
        assert_eq!(grown(|_| {}), "");
        let mib = 1024.0;
        assert!(grown(|at| at.rss_kib += 0.8 * mib * at.second / 60.0).starts_with("memory"));
        // One that begins in the last third, and one that ends before it, as of a cache.
        let late = |at: &mut Sample| at.rss_kib += 0.04 * mib * (at.second - 1260.0).max(0.0);
        assert_ne!(grown(late), "");
        assert_eq!(grown(|at| at.rss_kib += 0.04 * mib * at.second.min(1000.0)), "");
        assert!(grown(|at| at.threads += (at.second / 300.0).floor()).starts_with("threads"));
        assert!(grown(|at| at.files += (at.second / 600.0).floor()).starts_with("open files"));
        // Files that are closed again are no leak.
        assert_eq!(grown(|at| at.files += (at.second % 300.0 / 150.0).floor()), "");
    }

    #[test]
    fn work_that_takes_and_gives_back_is_flat_and_a_leak_beyond_its_noise_is_not() {
        let wave = |second: f64| 2e5 + 1e4 * (second / 7.0).sin();
        assert!(judge(&record(wave)).is_ok());
        assert!(judge(&record(|second| wave(second) + 100.0 * second)).is_err());
        assert!(judge(&record(|second| 2e5 + 1.0 * second)).is_err());
    }

    #[test]
    fn what_grows_in_the_warm_up_alone_is_flat() {
        assert!(judge(&record(|second| 1e5 + 1e3 * second.min(59.0))).is_ok());
        // And what is full after the first third.
        assert!(judge(&record(|second| 1e5 + 1e3 * second.min(239.0))).is_ok());
    }

    #[test]
    fn a_short_record_is_not_judged() {
        assert!(judge(&record(|_| 1.0)[..20]).is_err());
    }
}
