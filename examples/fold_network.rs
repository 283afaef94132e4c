//! Folds the normalizations of a network into the layers before them, for inference, and compares.
//! `cargo run --release --example fold_network` runs it on the host (CPU).
//!
//! The network: linear 4 -> 8, normalization, ReLU, linear 8 -> 3, normalization.
use std::error::Error;

use syncbn::{BatchNormConfig, Device, SyncBatchNorm, low_level::Epilogue};

const SAMPLES: usize = 64;
const WIDTHS: [usize; 3] = [4, 8, 3];

fn main() -> Result<(), Box<dyn Error>> {
    pollster::block_on(async {
        let mut x = numbers(SAMPLES * WIDTHS[0], 0.3);
        let mut folded = x.clone();
        for (layer, pair) in WIDTHS.windows(2).enumerate() {
            let [inputs, outputs] = [pair[0], pair[1]];
            let weight = numbers(outputs * inputs, 1.0 + layer as f32);
            let bias = numbers(outputs, 2.0 + layer as f32);
            let activation = if layer == 0 { Epilogue::RELU } else { Epilogue::NONE };
            let config = BatchNormConfig::torch(outputs)
                .with_residual(activation.residual)
                .with_activation(activation.activation);
            let bn = SyncBatchNorm::new(config, [Device::host()])?;
            let hidden = linear(&x, &weight, &bias);
            let hidden = Device::host().upload(&[SAMPLES, outputs], &hidden)?;
            for _ in 0..20 {
                bn.forward_train(&hidden).await?; // so that running statistics are of this data
            }
            x = bn.forward_eval(&hidden).await?.output.to_vec().await?;

            let (weight, bias) = bn.scale_shift().await?.fold(&weight, Some(&bias))?;
            folded = linear(&folded, &weight, &bias);
            if layer == 0 {
                folded.iter_mut().for_each(|y| *y = y.max(0.0)); // the activation is no part of it
            }
        }
        let differences = x.iter().zip(&folded).map(|(y, folded)| (y - folded).abs());
        let difference = differences.fold(0.0, f32::max);
        let largest = x.iter().fold(0f32, |largest, y| largest.max(y.abs()));
        println!(
            "largest |y| {largest:.3}, largest difference of the folded network {difference:e}"
        );
        assert!(difference < 1e-5 * largest);
        Ok(())
    })
}

/// x of (N, I) times weight of (O, I), plus bias of (O).
fn linear(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let inputs = weight.len() / bias.len();
    let rows = || weight.chunks(inputs).zip(bias);
    let product = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>();
    x.chunks(inputs).flat_map(|x| rows().map(move |(w, b)| product(x, w) + b)).collect()
}

fn numbers(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|index| (1.7 * index as f32 + seed).sin()).collect()
}
