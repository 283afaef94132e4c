//! A few steps of gradient descent on random data, so that there is a state worth saving.
//!
//! The layer learns the channels' targets: y is to have mean and deviation of its own in every
//! channel.

use syncbn::{Backward, Error, SyncBatchNorm, Tensor};

/// C.
pub const CHANNELS: usize = 4;
/// Steps of the run.
const STEPS: u64 = 6;
/// Weight of a gradient in a step.
const LEARNING_RATE: f32 = 0.5;
/// What y should be of the normalized input in every channel: scale and shift.
const TARGETS: [(f32, f32); CHANNELS] = [(2.0, 1.0), (0.5, -1.0), (1.0, 3.0), (3.0, 0.0)];

/// What one rank holds of a batch, (N, C, L).
pub struct Shard {
    pub dims: [usize; 3],
    pub values: Vec<f32>,
}

/// A batch on two ranks of different size, from a seed.
pub fn shards(seed: u64) -> [Shard; 2] {
    // A linear congruential generator (Knuth's constants) is random enough for an example.
    let mut state = seed.wrapping_mul(2) + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    [[6, CHANNELS, 10], [3, CHANNELS, 10]].map(|dims: [usize; 3]| {
        // Every channel has a mean and a deviation of its own.
        let value = |index: usize| (index / dims[2] % CHANNELS) as f32;
        let values = (0..dims.iter().product())
            .map(|index| 5.0 * value(index) + (1.0 + value(index)) * next());
        Shard { dims, values: values.collect() }
    })
}

/// The shards, each on the device of its rank.
pub fn upload(layer: &SyncBatchNorm, shards: &[Shard; 2]) -> Result<Vec<Tensor>, Error> {
    shards
        .iter()
        .zip(layer.devices())
        .map(|(shard, device)| device.upload(&shard.dims, &shard.values))
        .collect()
}

/// Trains the layer; the loss of every step, half the mean square of y − target.
pub async fn run(layer: &mut SyncBatchNorm) -> Result<Vec<f32>, Error> {
    let mut parameters = [[1.0f32; CHANNELS], [0.0; CHANNELS]];
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let inputs = upload(layer, &shards(step))?;
        let forward = layer.forward_train(&inputs).await?;
        let count = inputs.iter().map(Tensor::element_count).sum::<usize>() as f32;

        // The target is what the layer would give with the right weight and bias.
        let mut loss = 0.0;
        let mut grad_outputs = Vec::new();
        for output in &forward.output {
            let positions: usize = output.dims()[2..].iter().product();
            let mut upstream = output.to_vec().await?;
            for (index, y) in upstream.iter_mut().enumerate() {
                let channel = index / positions % CHANNELS;
                let (scale, shift) = TARGETS[channel];
                let normalized = (*y - parameters[1][channel]) / parameters[0][channel];
                let error = *y - (scale * normalized + shift);
                loss += 0.5 * error * error / count;
                *y = error / count * CHANNELS as f32;
            }
            grad_outputs.push(output.device().upload(output.dims(), &upstream)?);
        }
        losses.push(loss);

        // Gradients of weight and bias are each rank's own: the trainer adds them up.
        let backward = layer.backward(&forward.saved, Backward::of(&inputs, &grad_outputs)).await?;
        for (values, gradients) in parameters.iter_mut().zip([backward.weight, backward.bias]) {
            for gradient in gradients.unwrap_or_default() {
                for (value, gradient) in values.iter_mut().zip(gradient.to_vec().await?) {
                    *value -= LEARNING_RATE * gradient;
                }
            }
        }
        layer.set_parameters(Some(&parameters[0]), Some(&parameters[1]))?;
    }
    Ok(losses)
}
