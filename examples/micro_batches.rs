//! Micro-batches that are never in memory together, normalized as one batch. Each is loaded when a
//! step needs it and dropped after it; the gradient of the weight adds up in place.
//! `cargo run --release --example micro_batches` runs it on the host (CPU).
use std::ops::Range;

use syncbn::stats::{LocalGradientSums, LocalStatistics};
use syncbn::{Backward, BatchNormConfig, Device, SyncBatchNorm, Tensor};

/// The samples of each micro-batch: numbers may differ, and may be 0.
const PARTS: [Range<usize>; 4] = [0..5, 5..6, 6..6, 6..14];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    pollster::block_on(async {
        let bn = SyncBatchNorm::new(BatchNormConfig::torch(3), [Device::host()])?;
        // Forward: the statistics of all, then each output, which is not kept here.
        let mut local = LocalStatistics::empty(3);
        for part in PARTS {
            local.merge(&bn.local_statistics(&load(part, "x")?).await?)?;
        }
        let global = bn.synchronize(local).await?;
        let mut saved = Vec::new();
        for part in PARTS {
            saved.push(bn.normalize(&load(part, "x")?, &global).await?.saved);
        }
        // Backward: the sums of all, then each gradient of x. `recomputed` says that the x which
        // is loaded again has the values of the one that `saved` knows.
        let mut dw = Device::host().zeros(&[3])?;
        let mut sums = LocalGradientSums::empty(3);
        for (part, saved) in PARTS.into_iter().zip(&saved) {
            let (x, dy) = (load(part.clone(), "x")?, load(part, "dy")?);
            let request = Backward::of(&x, &dy).recomputed().weight_gradient(&mut dw).accumulate();
            sums.merge(&bn.local_gradient_sums(saved, request).await?)?;
        }
        let sums = bn.synchronize(sums).await?;
        let mut dx = Vec::new();
        for (part, saved) in PARTS.into_iter().zip(&saved) {
            let (x, mut dy) = (load(part.clone(), "x")?, load(part, "dy")?);
            bn.input_gradients(saved, Backward::in_place(&x, &mut dy).recomputed(), &sums).await?;
            dx.extend(dy.to_vec().await?);
        }
        // The same in one batch.
        let (x, dy) = (load(0..14, "x")?, load(0..14, "dy")?);
        let whole = bn.backward(&bn.forward_train(&x).await?.saved, Backward::of(&x, &dy)).await?;
        let whole_dw = whole.weight.ok_or("no weight")?.to_vec().await?;
        let expected = [whole.input.to_vec().await?, whole_dw].concat();
        let found = [dx, dw.to_vec().await?].concat();
        println!("of micro-batches {:.4?} …, of one batch {:.4?} …", &found[..3], &expected[..3]);
        approx::assert_abs_diff_eq!(found[..], expected[..], epsilon = 1e-5);
        Ok(())
    })
}

/// Values (N, 3) of some samples, as from a file.
fn load(part: Range<usize>, name: &str) -> Result<Tensor, syncbn::Error> {
    let at = |i: usize| 10.0 + (1.7 * i as f32 + name.len() as f32).sin();
    let values: Vec<f32> = (3 * part.start..3 * part.end).map(at).collect();
    Device::host().upload(&[part.len(), 3], &values)
}
