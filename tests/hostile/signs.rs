//! Backward finds every value active that forward found active, also where
//! rounding decides, and whatever a compiler contracts in one kernel and not in another.

use pollster::block_on;
use syncbn::stats::RunningStats;
use syncbn::{Backward, BatchNormConfig, Device, Forward, SyncBatchNorm, low_level::Epilogue};

use super::common::*;

/// Positions, in fours and not.
pub const POSITIONS: [usize; 2] = [512, 513];
const CHANNELS: usize = 4;

/// A layer that normalizes with running statistics.
fn layer(device: &Device, epilogue: Epilogue, random: &mut Random) -> SyncBatchNorm {
    let config = BatchNormConfig::torch(CHANNELS)
        .with_residual(epilogue.residual)
        .with_activation(epilogue.activation);
    let mut layer = SyncBatchNorm::new(config, [device.clone()]).unwrap();
    let mut parameters = Parameters::random(CHANNELS, random);
    parameters.weight.iter_mut().for_each(|weight| *weight += weight.signum());
    parameters.set(&mut layer);
    let var = (0..CHANNELS).map(|_| (1.5 + random.next()) as f32).collect();
    let running = RunningStats { mean: random.values(CHANNELS), var, num_batches_tracked: 1 };
    layer.set_running_stats(running).unwrap();
    layer
}

/// Evaluation of a layer with an upstream gradient of 1 everywhere: gradients of values that were
/// above 0 are not 0, and the gradient of the bias counts them. How many values are above 0, and
/// how many are not.
fn check(layer: &SyncBatchNorm, x: &Batch, residual: Option<&Batch>) -> Result<[usize; 2], String> {
    let device = &layer.devices()[0];
    let g = Batch::new(&x.dims, |_| 1.0);
    let x = [x.upload(device)];
    let upstream = [g.upload(device)];
    let residual = residual.map(|residual| [residual.upload(device)]);
    let forward = Forward::of(&x);
    let backward = Backward::of(&x, &upstream);
    let (forward, backward) = match &residual {
        Some(residual) => (forward.residual(residual), backward.residual(residual)),
        None => (forward, backward),
    };
    let forward = block_on(layer.forward_eval(forward)).unwrap();
    let backward = block_on(layer.backward(&forward.saved, backward)).unwrap();
    let y = &read(&forward.output)[0];
    let dx = &read(&backward.input)[0];
    let mut above = [0usize; CHANNELS];
    for (index, (&y, &dx)) in y.iter().zip(dx).enumerate() {
        if (y > 0.0) != (dx != 0.0) {
            return Err(format!("value {index}: y {y:e}, gradient {dx:e}"));
        }
        above[g.channel(index)] += usize::from(y > 0.0);
    }
    if let Some(found) = &backward.residual {
        let found = &read(found)[0];
        if y.iter().zip(found).any(|(&y, &r)| (y > 0.0) != (r != 0.0)) {
            return Err("residuals".to_owned());
        }
    }
    let counted = read(backward.bias.as_deref().unwrap()).concat();
    if counted != above.map(|above| above as f32) {
        return Err(format!("sums of gradients: {counted:?}, values above 0: {above:?}"));
    }
    let above = above.iter().sum();
    Ok([above, y.len() - above])
}

/// Values within a few last places of where the activation turns, by x and by a residual. How many
/// are above it, and how many are not.
pub fn near_the_turn(device: &Device, positions: usize, seed: u64) -> Result<[usize; 2], String> {
    let mut random = Random::new(900 + seed);
    let dims = [2, CHANNELS, positions];
    // Without an epilogue y is v.
    let plain = layer(device, Epilogue::NONE, &mut Random::new(seed));
    let x = Batch::random(&dims, &mut random);
    let v = block_on(plain.forward_eval(&[x.upload(device)])).unwrap();
    let v = &read(&v.output)[0];
    // What the residual leaves of v is a few last places, of either sign.
    let near = |value: f32, random: &mut Random| {
        f32::from_bits(value.to_bits().wrapping_add(random.below(5) as u32).wrapping_sub(2))
    };
    let residual = Batch::new(&dims, |index| -near(v[index], &mut random));
    let adds = layer(device, Epilogue::ADD_RELU, &mut Random::new(seed));
    let by_residual =
        check(&adds, &x, Some(&residual)).map_err(|error| format!("with a residual: {error}"))?;

    // x where v crosses 0, by bisection, and a few last places of it.
    let zeros = crossings(device, &plain, &dims);
    let x = Batch::new(&dims, |index| near(zeros[index / positions % CHANNELS], &mut random));
    let relu = layer(device, Epilogue::RELU, &mut Random::new(seed));
    let by_x = check(&relu, &x, None).map_err(|error| format!("without a residual: {error}"))?;
    Ok([by_residual[0] + by_x[0], by_residual[1] + by_x[1]])
}

#[test]
fn backward_finds_active_what_forward_found_active_where_rounding_decides() {
    let mut signs = [0, 0];
    for (number, device) in virtual_gpus().iter().enumerate() {
        for positions in POSITIONS {
            for seed in 0..4 {
                let failed =
                    |error| panic!("device {number}, {positions} positions, seed {seed}: {error}");
                let [above, below] = near_the_turn(device, positions, seed).unwrap_or_else(failed);
                signs[0] += above;
                signs[1] += below;
            }
        }
    }
    let all = signs[0] + signs[1];
    assert!(signs.iter().all(|count| 8 * count > all), "{signs:?}");
}

/// Of every channel, an x at which v is as near to 0 as bisection gets.
fn crossings(device: &Device, plain: &SyncBatchNorm, dims: &[usize]) -> Vec<f32> {
    let [mut low, mut high] = [[-30f32; CHANNELS], [30f32; CHANNELS]];
    let weight = block_on(plain.weight(0).unwrap().to_vec()).unwrap();
    for _ in 0..32 {
        let middle: Vec<f32> = (0..CHANNELS).map(|c| 0.5 * (low[c] + high[c])).collect();
        let x = Batch::new(dims, |index| middle[index / dims[2] % CHANNELS]);
        let v = block_on(plain.forward_eval(&[x.upload(device)])).unwrap();
        let v = &read(&v.output)[0];
        for channel in 0..CHANNELS {
            let is_above = (v[channel * dims[2]] > 0.0) == (weight[channel] > 0.0);
            if is_above { high[channel] = middle[channel] } else { low[channel] = middle[channel] }
        }
    }
    high.to_vec()
}
