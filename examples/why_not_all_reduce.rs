//! Why not fifty lines of all-reduce? Synchronized batch normalization in three ways, over two
//! ranks of different size, and how far the worst y is from the definition in f64.
//!
//! 1. Each rank sums x and x² in f32, as a tree of pairs; the sums are all-reduced.
//! 2. Each rank takes its mean and variance, exactly; the ranks' are averaged.
//! 3. This crate.
//!
//! `cargo run --release --example why_not_all_reduce` prints a table in Markdown.

use pollster::block_on;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use syncbn::{BatchNormConfig, Device, SyncBatchNorm};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Batch = [Vec<f32>; 2];

/// Values of the one channel on each rank.
const COUNTS: [usize; 2] = [6000, 2000];
const EPS: f64 = 1e-5;
/// The bound of this crate, in ulp of the largest |y|.
const MAX_ULPS: f64 = 8.0;

fn main() -> Result<()> {
    let [first, second] = COUNTS;
    println!("Worst |Δy| from the definition in f64, in standard deviations of y (in ulp of the");
    println!(
        "largest |y|), of {first} values on rank 0 and {second} on rank 1. Bold: above 1 %.\n"
    );
    println!(
        "| x, uniform in mean ± half-width | sums of x and x², all-reduced | means and variances, \
        averaged | syncbn |"
    );
    println!("|---|---:|---:|---:|");
    for (name, means, half_width) in [
        ("0 ± 1", [0.0; 2], 1.0),
        ("100 ± 1", [100.0; 2], 1.0),
        ("1e4 ± 1e-2", [1e4; 2], 1e-2),
        ("1e6 ± 1", [1e6; 2], 1.0),
        ("0 ± 1 on rank 0, 10 ± 1 on rank 1", [0.0, 10.0], 1.0),
    ] {
        let x = batch(means, half_width);
        let expected = definition(&x);
        let ways = [sums(&x), averages(&x), syncbn(&x)?];
        let errors = ways.map(|y| worst_error(&y, &expected));
        println!("| {name} | {} |", errors.map(cell).join(" | "));
        let [_, ulps] = errors[2];
        assert!(ulps <= MAX_ULPS, "{name}: y is off by {ulps} ulp");
    }
    Ok(())
}

/// Values that are uniform in mean ± half-width, from a fixed seed.
fn batch(means: [f32; 2], half_width: f32) -> Batch {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut uniform = || random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0;
    [0, 1].map(|rank| (0..COUNTS[rank]).map(|_| means[rank] + half_width * uniform()).collect())
}

/// (x − mean) / √(variance + ε) in f64, with the biased variance of all values.
fn definition(x: &Batch) -> Vec<f64> {
    let x: Vec<f64> = x.concat().into_iter().map(f64::from).collect();
    let (mean, var) = mean_and_variance(&x);
    x.iter().map(|x| (x - mean) / (var + EPS).sqrt()).collect()
}

fn mean_and_variance(x: &[f64]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64)
}

/// Way 1: var = Σx²/N − mean².
fn sums(x: &Batch) -> Vec<f32> {
    let squares = x.clone().map(|x| x.iter().map(|x| x * x).collect::<Vec<f32>>());
    let all_reduced = |ranks: &Batch| tree_sum(&ranks[0]) + tree_sum(&ranks[1]);
    let count = COUNTS.iter().sum::<usize>() as f32;
    let mean = all_reduced(x) / count;
    let var = (all_reduced(&squares) / count - mean * mean).max(0.0);
    normalize(x, mean, var)
}

/// Sums pairs, then pairs of these, as the invocations of a workgroup do.
fn tree_sum(values: &[f32]) -> f32 {
    match values {
        [] => 0.0,
        [value] => *value,
        _ => {
            let (left, right) = values.split_at(values.len() / 2);
            tree_sum(left) + tree_sum(right)
        }
    }
}

/// Way 2: every rank counts the same, however many values it has, and the distance between the
/// means is in no variance.
fn averages(x: &Batch) -> Vec<f32> {
    let of_rank = |x: &Vec<f32>| {
        let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
        mean_and_variance(&x)
    };
    let [a, b] = [of_rank(&x[0]), of_rank(&x[1])];
    normalize(x, ((a.0 + b.0) / 2.0) as f32, ((a.1 + b.1) / 2.0) as f32)
}

fn normalize(x: &Batch, mean: f32, var: f32) -> Vec<f32> {
    let inv_std = 1.0 / (var + EPS as f32).sqrt();
    x.concat().iter().map(|x| (x - mean) * inv_std).collect()
}

/// Way 3.
fn syncbn(x: &Batch) -> Result<Vec<f32>> {
    let host = Device::host();
    let bn = SyncBatchNorm::new(BatchNormConfig::torch(1), [host.clone(), host.clone()])?;
    let x = [host.upload(&[COUNTS[0], 1], &x[0])?, host.upload(&[COUNTS[1], 1], &x[1])?];
    let y = block_on(bn.forward_train(&x))?.output;
    Ok([block_on(y[0].to_vec())?, block_on(y[1].to_vec())?].concat())
}

/// The largest |Δy| in standard deviations of y, and in ulp of the largest |y|. NaN is the largest.
fn worst_error(y: &[f32], expected: &[f64]) -> [f64; 2] {
    let errors = y.iter().zip(expected).map(|(y, expected)| (f64::from(*y) - expected).abs());
    let worst = errors.max_by(f64::total_cmp).unwrap_or(f64::NAN);
    let largest = expected.iter().fold(0.0f64, |largest, y| largest.max(y.abs())) as f32;
    let ulp = f64::from(largest.next_up() - largest);
    [worst / mean_and_variance(expected).1.sqrt(), worst / ulp]
}

fn cell([deviations, ulps]: [f64; 2]) -> String {
    let ulps = if ulps < 100.0 { format!("{ulps:.1}") } else { format!("{ulps:.0e}") };
    let text = format!("{deviations:.0e} ({ulps} ulp)");
    if deviations < 0.01 { text } else { format!("**{text}**") }
}
