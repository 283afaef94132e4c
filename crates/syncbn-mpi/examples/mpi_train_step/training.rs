//! Gradient descent on one rank: the layer in the middle, and the sum of all ranks' gradients.

use syncbn::{Backward, BatchNormConfig, Device, Error, ProcessGroup, SyncBatchNorm};

use crate::model::{BIAS, HIDDEN, Parameters, Samples, WEIGHT, backward_first};

/// Step size: small enough for the loss to fall in every step.
const RATE: f64 = 0.1;

/// The data and layer of one rank.
pub struct Rank {
    /// Where gradients are added up and statistics are shared.
    pub group: ProcessGroup,
    pub device: Device,
    /// This rank's shard, and the number of samples of all ranks.
    pub samples: Samples,
    pub total: usize,
}

impl Rank {
    /// The loss of the whole batch in each step, the same on every rank.
    pub async fn train(self, steps: usize) -> Result<Vec<f64>, Error> {
        let Self { device, samples, .. } = &self;
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(HIDDEN), [device.clone()])?;
        let mut layer = layer.named("hidden").in_group(&self.group)?;
        let mut parameters = Parameters::new();
        let mut losses = Vec::with_capacity(steps);
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

            // The loss travels with the gradients.
            let own = residuals.iter().map(|r| r * r).sum::<f64>();
            let mut sums: Vec<f32> = [own].into_iter().chain(gradient).map(|v| v as f32).collect();
            self.group.all_reduce_sum([&mut sums]).await?;
            losses.push(f64::from(sums[0]) / self.total as f64);
            for (value, gradient) in parameters.values.iter_mut().zip(&sums[1..]) {
                *value -= RATE * f64::from(*gradient);
            }
        }
        Ok(losses)
    }
}
