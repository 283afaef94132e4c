//! Reproducible layers over several processes against one rank that has the whole batch: every bit
//! must be equal.

use std::ops::Range;

use syncbn::config::AffineGradient;
use syncbn::{Backward, BatchNormConfig, Device, Error, SyncBatchNorm, Tensor};
use syncbn_mpi::Mpi;

use crate::bits::values;
use crate::scenes::{Reported, group};

const CHANNELS: usize = 4;
/// So many that the spike of channel 0 is beyond 32 deviations: its rounding errors are summed too.
const POSITIONS: usize = 700;
/// Values of a sample.
const SAMPLE: usize = CHANNELS * POSITIONS;
const STEPS: u64 = 2;

/// Samples of every process, none of one of them.
const SAMPLES: [usize; 4] = [3, 5, 0, 4];

/// The bits of a few training steps with some of the samples of the batch.
struct Trained {
    /// y and the gradient of x, of these samples.
    outputs: Vec<[Vec<u32>; 2]>,
    /// Gradients of weight and bias, then running statistics.
    shared: Vec<Vec<u32>>,
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

fn read(tensor: &Tensor) -> Result<Vec<u32>, Error> {
    Ok(bits(pollster::block_on(tensor.to_vec())?))
}

fn train(
    layer: &SyncBatchNorm,
    samples: Range<usize>,
    total: usize,
) -> Result<Trained, Box<dyn std::error::Error>> {
    let mut outputs = Vec::new();
    let mut shared = Vec::new();
    for step in 0..STEPS {
        let upload = |seed: u64| {
            let all = values(total * SAMPLE, seed + 10 * step);
            let own = &all[samples.start * SAMPLE..samples.end * SAMPLE];
            Device::host().upload(&[samples.len(), CHANNELS, POSITIONS], own)
        };
        let x = upload(1)?;
        let grad_output = upload(2)?;
        let forward = pollster::block_on(layer.forward_train(&x))?;
        let backward = Backward::of(&x, &grad_output);
        let backward = pollster::block_on(layer.backward(&forward.saved, backward))?;
        outputs.push([read(&forward.output)?, read(&backward.input)?]);
        for gradient in [&backward.weight, &backward.bias] {
            let gradient = gradient.as_ref().ok_or("a gradient of weight or bias is missing")?;
            shared.push(read(gradient)?);
        }
    }
    let running = layer.running_stats().ok_or("there are no running statistics")?;
    shared.extend([bits(running.mean), bits(running.var)]);
    Ok(Trained { outputs, shared })
}

fn layer() -> Result<SyncBatchNorm, Error> {
    let config = BatchNormConfig::torch(CHANNELS)
        .with_affine_gradient(AffineGradient::GroupSum)
        .with_reproducible(true);
    SyncBatchNorm::new(config, [Device::host()])
}

/// Each process has another part of the batch.
pub fn over_processes(mpi: &Mpi, all_reduced: bool) -> Reported {
    let group = group(mpi, all_reduced)?;
    let count = |process: usize| SAMPLES[process % SAMPLES.len()];
    let rank = group.rank();
    let world = group.world_size();
    let first: usize = (0..rank).map(count).sum();
    let total: usize = (0..world).map(count).sum();
    let own = first..first + count(rank);
    let found = train(&layer()?.in_group(&group)?, own.clone(), total)?;
    let expected = train(&layer()?, 0..total, total)?;
    if found.shared != expected.shared {
        return Err("gradients of weight and bias, or running statistics, have other bits".into());
    }
    let of_own = own.start * SAMPLE..own.end * SAMPLE;
    for (step, (found, expected)) in found.outputs.iter().zip(&expected.outputs).enumerate() {
        for (found, expected) in found.iter().zip(expected) {
            if found[..] != expected[of_own.clone()] {
                return Err(format!("step {step}: outputs of {own:?} have other bits").into());
            }
        }
    }
    Ok("the bits of one rank".to_owned())
}
