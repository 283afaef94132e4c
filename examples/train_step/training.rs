//! Gradient descent on one rank: the layer in the middle, and the sum of all ranks' gradients.

use syncbn::{Backward, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};

use crate::model::{BIAS, HIDDEN, Parameters, Samples, WEIGHT, backward_first};

/// Step size: small enough for the loss to fall in every step.
const RATE: f64 = 0.1;

/// How far y of two runs may be apart, in ulp of the largest |y|: each is within 8 of the exact
/// value.
const ULPS: f64 = 16.0;

/// How far the sums of two runs may be apart, in ulp of f32: before they are added up each rank
/// rounds what it has, and then each sum is rounded. The loss is such a sum, and along gradients a
/// step changes it by no more than itself.
const SUM_ULPS: f64 = 4.0;

/// What one rank trains with.
pub struct Rank {
    /// Where gradients are added up, and statistics are shared if the layer synchronizes.
    pub group: ProcessGroup,
    pub synchronizes: bool,
    pub device: Device,
    /// This rank's shard, and the number of samples of all ranks.
    pub samples: Samples,
    pub total: usize,
}

/// The losses of a training, of the whole batch.
#[derive(Debug, Default)]
pub struct Losses {
    pub losses: Vec<f64>,
    /// By how much rounding in the layer may change the loss of each step.
    rounding: Vec<f64>,
}

impl Losses {
    /// By how much the loss of another run may differ that does the same in another order.
    ///
    /// The loss is the mean of r² with residuals r = Σ w·tanh(y) + b − target. If every y is off by
    /// δ, it changes by at most the mean of 2·|r|·Σ |w|·(1 − tanh²(y))·δ; δ is what the two runs
    /// may round differently. Rounding of the sums is added. Every step adds its part: through the
    /// gradients, times a rate below 1, to all later losses.
    pub fn allowed(&self, step: usize) -> f64 {
        self.rounding[..=step].iter().sum()
    }
}

impl Rank {
    pub async fn train(self, steps: usize) -> Result<Losses, Error> {
        let Self { device, samples, .. } = &self;
        let layer =
            SyncBatchNorm::new(BatchNormConfig::torch(HIDDEN), [device.clone()])?.named("hidden");
        let mut layer = if self.synchronizes { layer.in_group(&self.group)? } else { layer };
        let mut parameters = Parameters::new();
        let mut losses = Losses::default();
        let dims = [samples.len(), HIDDEN];
        for _ in 0..steps {
            let hidden = device.upload(&dims, &parameters.hidden(samples))?;
            layer
                .set_parameters(Some(&parameters.in_f32(WEIGHT)), Some(&parameters.in_f32(BIAS)))?;
            let forward = layer.forward_train(&hidden).await?;
            let y = forward.output.to_vec().await?;
            let (residuals, activations) = parameters.residuals(samples, &y);

            let mut gradient = vec![0.0; parameters.values.len()];
            let grad_y =
                parameters.backward_second(&residuals, &activations, self.total, &mut gradient);
            let grad_y = device.upload(&dims, &grad_y)?;
            let backward = layer.backward(&forward.saved, Backward::of(&hidden, &grad_y)).await?;
            for (part, of_layer) in [(WEIGHT, &backward.weight), (BIAS, &backward.bias)] {
                let Some(of_layer) = of_layer else { continue };
                let values = of_layer.to_vec().await?;
                gradient[part]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(gradient, value)| *gradient = value.into());
            }
            backward_first(samples, &backward.input.to_vec().await?, &mut gradient);

            // The loss and its rounding travel with the gradients.
            let largest_y = y.iter().fold(0f64, |largest, &y| largest.max(f64::from(y).abs()));
            let delta = ULPS * f64::from(f32::EPSILON) * largest_y;
            let rounding = delta * parameters.sensitivity(&residuals, &activations);
            let own = [residuals.iter().map(|r| r * r).sum::<f64>(), rounding];
            let mut sums: Vec<f32> =
                own.into_iter().chain(gradient).map(|value| value as f32).collect();
            self.group.all_reduce_sum([&mut sums]).await?;
            let [loss, rounding] = [sums[0], sums[1]].map(|sum| f64::from(sum) / self.total as f64);
            losses.rounding.push(rounding + SUM_ULPS * f64::from(f32::EPSILON) * loss);
            losses.losses.push(loss);
            for (value, gradient) in parameters.values.iter_mut().zip(&sums[2..]) {
                *value -= RATE * f64::from(*gradient);
            }
        }
        Ok(losses)
    }
}
