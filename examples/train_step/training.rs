//! Gradient descent on one rank: the layer in the middle, and the sum of all ranks' gradients.

use std::time::Duration;

use syncbn::collective::{Collective, CollectiveError};
use syncbn::{Device, ProcessGroup, SyncBatchNorm, SyncBatchNormConfig};

use crate::model::{BIAS, HIDDEN, Parameters, Samples, WEIGHT, backward_first};

/// Step size: small enough for the loss to fall in every step.
const RATE: f64 = 0.1;

/// How far y of two runs may be apart, in ulp of the largest |y|: each is within 8 of the exact value.
const ULPS: f64 = 16.0;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Layer(#[from] syncbn::Error),
    #[error("gradients could not be added up: {0}")]
    Gradients(#[from] CollectiveError),
}

/// What one rank trains with.
pub struct Rank {
    /// Where gradients are added up.
    pub gradients: Box<dyn Collective>,
    /// Where statistics are shared.
    pub group: ProcessGroup,
    pub device: Device,
    /// This rank's shard, and the number of samples of all ranks.
    pub samples: Samples,
    pub total: usize,
    pub deadline: Duration,
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
    /// The loss is the mean of r² with residuals r = Σ w·tanh(y) + b − target. If every y is off by δ, it changes by at
    /// most the mean of 2·|r|·Σ |w|·(1 − tanh²(y))·δ; δ is what the two runs may round differently. Every step adds its
    /// part: through the gradients, times a rate below 1, to all later losses.
    pub fn allowed(&self, step: usize) -> f64 {
        self.rounding[..=step].iter().sum()
    }
}

impl Rank {
    pub async fn train(self, steps: usize) -> Result<Losses, TrainError> {
        let Self { device, samples, .. } = &self;
        let mut layer =
            SyncBatchNorm::named("hidden", SyncBatchNormConfig::torch(HIDDEN), device.clone(), &self.group)?;
        let mut parameters = Parameters::new();
        let mut losses = Losses::default();
        let dims = [samples.len(), HIDDEN];
        for _ in 0..steps {
            let hidden = device.upload(&dims, &parameters.hidden(samples))?;
            layer.set_parameters(Some(&parameters.in_f32(WEIGHT)), Some(&parameters.in_f32(BIAS)))?;
            let forward = layer.forward_train(&hidden).await?;
            let y = forward.output.to_vec().await?;
            let (residuals, activations) = parameters.residuals(samples, &y);

            let mut gradient = vec![0.0; parameters.values.len()];
            let grad_y = parameters.backward_second(&residuals, &activations, self.total, &mut gradient);
            let backward = layer.backward(&forward.saved, &hidden, &device.upload(&dims, &grad_y)?).await?;
            for (part, of_layer) in [(WEIGHT, &backward.grad_weight), (BIAS, &backward.grad_bias)] {
                let Some(of_layer) = of_layer else { continue };
                let values = of_layer.to_vec().await?;
                gradient[part].iter_mut().zip(values).for_each(|(gradient, value)| *gradient = value.into());
            }
            backward_first(samples, &backward.grad_input.to_vec().await?, &mut gradient);

            // The loss and its rounding travel with the gradients.
            let largest_y = y.iter().fold(0f64, |largest, &y| largest.max(f64::from(y).abs()));
            let delta = ULPS * f64::from(f32::EPSILON) * largest_y;
            let rounding = delta * parameters.sensitivity(&residuals, &activations);
            let own = [residuals.iter().map(|r| r * r).sum::<f64>(), rounding];
            let summed = self.sum(own.into_iter().chain(gradient)).await?;
            let [loss, rounding] = [summed[0], summed[1]].map(|sum| sum / self.total as f64);
            losses.rounding.push(rounding);
            losses.losses.push(loss);
            parameters.values.iter_mut().zip(&summed[2..]).for_each(|(value, gradient)| *value -= RATE * gradient);
        }
        Ok(losses)
    }

    /// The sum over all ranks, in rank order, so that every rank has the same bits.
    async fn sum(&self, values: impl Iterator<Item = f64>) -> Result<Vec<f64>, CollectiveError> {
        let message: Vec<u8> = values.flat_map(f64::to_le_bytes).collect();
        let mut sums = vec![0.0; message.len() / 8];
        for message in self.gradients.all_gather(message, self.deadline).await? {
            let values = message.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        Ok(sums)
    }
}
