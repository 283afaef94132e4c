//! The defaults of other layers, as settings of this crate. What they do is read off a layer of one
//! rank: over several ranks these layers weigh ranks by formulas of their own (see `formulas`).

use pollster::block_on;
use syncbn::config::{Momentum, RunningVariance};
use syncbn::{BatchNormConfig, Device, Error, SyncBatchNorm};

use super::{BATCH, moments, running, values};

pub fn print() -> Result<(), Error> {
    let torch = || BatchNormConfig::torch(1);
    let biased = |config: BatchNormConfig| config.with_running_variance(RunningVariance::Biased);
    let flax = || biased(torch().with_momentum(Momentum::Decay(0.99)));
    println!("### Defaults, on one rank\n");
    println!("| layer | eps | weight of a new batch | its variance in the running one |");
    println!("|---|---:|---:|---|");
    for (name, config) in [
        ("PyTorch, apex, mmcv", torch()),
        ("MindSpore nn", BatchNormConfig::mindspore(1)),
        ("MindSpore mint", BatchNormConfig::mindspore_mint(1)),
        ("Keras", flax().with_eps(1e-3)),
        ("Flax", flax()),
        ("Burn", biased(torch())),
    ] {
        println!("| {name} | {} |", cells(&config)?.join(" | "));
    }
    Ok(())
}

fn cells(config: &BatchNormConfig) -> Result<[String; 3], Error> {
    // y = d/√(d² + eps) for a batch of ±d.
    const D: f32 = 1e-3;
    let [y, ..] = train(config, &[D, -D])?;
    let eps = f64::from(D).powi(2) * (1.0 / (y * y) - 1.0);
    // From mean 0 and variance 1.
    let batch = BATCH.concat();
    let [mean, var] = moments(&batch);
    let [_, running_mean, running_var] = train(config, &batch)?;
    let weight = running_mean / mean;
    let entered = (running_var - (1.0 - weight)) / weight;
    let is_biased = approx::relative_eq!(entered, var, max_relative = 1e-3);
    let divisor = if is_biased { "biased" } else { "unbiased" };
    Ok([format!("{eps:.0e}"), format!("{weight:.2}"), format!("{entered:.2}, {divisor}")])
}

/// A step of training on one rank: the first value of y, running mean and variance.
fn train(config: &BatchNormConfig, batch: &[f32]) -> Result<[f64; 3], Error> {
    let host = Device::host();
    let bn = SyncBatchNorm::new(config.clone(), [host.clone()])?;
    let x = [host.upload(&[batch.len(), 1], batch)?];
    let y = values(&block_on(bn.forward_train(&x))?.output)?;
    let [mean, var] = running(&bn);
    Ok([y[0], mean, var].map(f64::from))
}
