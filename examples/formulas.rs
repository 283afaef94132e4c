//! The different results of implementations of synchronized batch normalization for one batch of
//! uneven ranks: 4, 8 on rank 0 and 10, 14, 12, 12 on rank 1. The values of this crate are read off
//! a layer that ran, the others are computed by the formula beside them. N is the number of values
//! of all ranks, n that of one. `mint` is MindSpore's newer layer, mmcv has its mode `default`.
//!
//! `cargo run --release --example formulas` prints a table in Markdown.

use approx::abs_diff_eq;
use pollster::block_on;
use syncbn::config::{Momentum, RunningVariance};
use syncbn::{BatchNormConfig, Device, SyncBatchNorm};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const RANKS: [&[f32]; 2] = [&[4.0, 8.0], &[10.0, 14.0, 12.0, 12.0]];
const EPS: f64 = 1e-5;

fn main() -> Result<()> {
    // With the weight 1 for the new batch, the running statistics are its own.
    let config = BatchNormConfig::torch(1).with_eps(EPS).with_momentum(Momentum::NewWeight(1.0));
    let biased = config.clone().with_running_variance(RunningVariance::Biased);
    let ours = train(config.clone(), RANKS)?;
    let running_biased = train(biased, RANKS)?.running_var;
    let of_small = train(config, [&[1e-3, -1e-3], &[1e-3, -1e-3]])?;
    // y = (x − mean)/√(variance + eps), solved for the variance.
    let ours_var = ((4.0 - ours.running_mean) / ours.first_y).powi(2) - EPS;

    let [[mean_0, var_0], [mean_1, var_1]] = RANKS.map(moments);
    let [group_mean, group_var] = moments(&RANKS.concat());
    let mean_of_means = (mean_0 + mean_1) / 2.0;
    let mean_of_squares = (mean_0 * mean_0 + var_0 + mean_1 * mean_1 + var_1) / 2.0;
    let var_of_averages = mean_of_squares - mean_of_means * mean_of_means;
    let about_mean = |x: &[f32]| {
        x.iter().map(|&x| (f64::from(x) - mean_of_means).powi(2)).sum::<f64>() / x.len() as f64
    };
    let average_about_mean = (about_mean(RANKS[0]) + about_mean(RANKS[1])) / 2.0;
    // mmcv takes the other rank to have as many values as rank 0.
    let mmcv_count = 2.0 * RANKS[0].len() as f64;
    let mmcv_running = average_about_mean * mmcv_count / (mmcv_count - 1.0);

    println!("| of one batch | value | formula, and who has it |\n|---|---:|---|");
    for (what, value, formula) in [
        ("mean", ours.running_mean, "Σx/N of all ranks: syncbn, PyTorch, mint, apex, Keras"),
        ("mean", mean_of_means, "means of the ranks averaged: MindSpore nn, Flax, mmcv"),
        ("mean", mean_0, "Σx/n of each rank, here rank 0: Burn"),
        ("variance in y", ours_var, "Σ(x − mean)²/N: syncbn, PyTorch, mint, apex, Keras"),
        ("variance in y", var_of_averages, "average of E(x²), minus mean²: MindSpore nn, Flax"),
        ("variance in y", average_about_mean, "average of E((x − mean)²): mmcv"),
        ("variance in y", var_0, "Σ(x − mean)²/n of each rank, here rank 0: Burn"),
        ("running variance", ours.running_var, "Σ(x − mean)²/(N − 1): syncbn, PyTorch, mint, apex"),
        ("running variance", running_biased, "Σ(x − mean)²/N: `RunningVariance::Biased`, Keras"),
        ("running variance", var_of_averages, "that in y: Flax"),
        ("running variance", mmcv_running, "that in y, times 2n/(2n − 1), here on rank 0: mmcv"),
        ("running variance", var_0, "that in y, here on rank 0: Burn"),
        ("y of 0.001, variance 1e-6", of_small.first_y, "x/√(var + 1e-5): syncbn, PyTorch"),
        ("y of 0.001, variance 1e-6", 1e-3 / (1e-3 + EPS), "x/(√var + 1e-5), for comparison"),
    ] {
        println!("| {what} | {value:.3} | {formula} |");
    }
    let is_near =
        |found: f64, expected: f64| abs_diff_eq!(found, expected, epsilon = 1e-5 * expected);
    assert!(is_near(ours.running_mean, group_mean) && is_near(ours_var, group_var));
    assert!(is_near(running_biased, group_var) && is_near(ours.running_var, group_var * 6.0 / 5.0));
    Ok(())
}

struct Trained {
    first_y: f64,
    running_mean: f64,
    running_var: f64,
}

/// A step of training over two ranks.
fn train(config: BatchNormConfig, ranks: [&[f32]; 2]) -> Result<Trained> {
    let host = Device::host();
    let bn = SyncBatchNorm::new(config, [host.clone(), host.clone()])?;
    let x = [
        host.upload(&[ranks[0].len(), 1], ranks[0])?,
        host.upload(&[ranks[1].len(), 1], ranks[1])?,
    ];
    let y = block_on(bn.forward_train(&x))?.output;
    let running = bn.running_stats().ok_or("no running statistics")?;
    Ok(Trained {
        first_y: block_on(y[0].to_vec())?[0].into(),
        running_mean: running.mean[0].into(),
        running_var: running.var[0].into(),
    })
}

/// Mean and biased variance in f64.
fn moments(x: &[f32]) -> [f64; 2] {
    let n = x.len() as f64;
    let mean = x.iter().copied().map(f64::from).sum::<f64>() / n;
    [mean, x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n]
}
