//! A small network on two moons, trained over ranks that see different parts of them.
//!
//! points (N, 2) → linear to 16 → batch normalization → tanh → linear to 1 → logistic loss. All but
//! the normalization is computed here, in f64. The gradients of the ranks are added up in all three
//! ways, as in data-parallel training. The ways differ only in the statistics.

use std::f64::consts::{PI, TAU};
use std::ops::Range;

use serde::Deserialize;
use syncbn::{Backward, BatchNormConfig, Device, Error, SyncBatchNorm, Tensor};

/// Width of the hidden layer, the channels of the normalization.
const HIDDEN: usize = 16;
/// Points of both moons.
const POINTS: usize = 200;
const LEARNING_RATE: f64 = 0.5;
/// Of the points across the moons.
const NOISE: f64 = 0.12;

/// Whose statistics normalize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Each rank's own.
    Local,
    /// Those of all ranks.
    Synchronized,
    /// One device has the whole batch.
    One,
}

/// Two interleaved moons, the upper one first.
struct Moons {
    points: Vec<[f64; 2]>,
    /// 1 for the lower moon.
    labels: Vec<f64>,
}

impl Moons {
    fn new() -> Self {
        let half = POINTS / 2;
        // Fractions of multiples of the golden ratio fill an interval evenly.
        let noise = |i: usize| NOISE * ((i as f64 * 0.618_033_988_749_895 * TAU).sin());
        let point = |i: usize| {
            let angle = PI * (i % half) as f64 / half as f64;
            let u = angle.cos();
            let v = angle.sin();
            let [x, y] = if i < half { [u, v] } else { [1.0 - u, 0.5 - v] };
            [x + noise(i), y + noise(i + POINTS)]
        };
        let label = |i: usize| if i < half { 0.0 } else { 1.0 };
        Self { points: (0..POINTS).map(point).collect(), labels: (0..POINTS).map(label).collect() }
    }
}

/// The parameters around the layer, and its own.
#[derive(Clone)]
struct Network {
    /// (HIDDEN, 2), without a bias, which the normalization would subtract.
    first: Vec<[f64; 2]>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    second: Vec<f64>,
    last: f64,
}

impl Network {
    fn zeros() -> Self {
        let zeros = vec![0.0; HIDDEN];
        let first = vec![[0.0; 2]; HIDDEN];
        Self { first, weight: zeros.clone(), bias: zeros.clone(), second: zeros, last: 0.0 }
    }

    fn new() -> Self {
        let mut network = Self::zeros();
        for i in 0..HIDDEN {
            network.first[i] = [(1.3 * i as f64 + 0.4).sin(), (2.9 * i as f64 + 1.1).cos()];
            network.second[i] = 0.3 * (2.1 * i as f64).cos();
        }
        network.weight.fill(1.0);
        network
    }

    fn values(&mut self) -> impl Iterator<Item = &mut f64> {
        let first = self.first.iter_mut().flatten();
        let others = self.weight.iter_mut().chain(&mut self.bias).chain(&mut self.second);
        first.chain(others).chain([&mut self.last])
    }

    fn descend(&mut self, mut gradient: Self) {
        for (value, slope) in self.values().zip(gradient.values()) {
            *value -= LEARNING_RATE * *slope;
        }
    }

    /// The input of the normalization: (points, HIDDEN).
    fn hidden(&self, points: &[[f64; 2]]) -> Vec<f32> {
        let row = |p: &[f64; 2]| {
            let p = *p;
            self.first.iter().map(move |w| (w[0] * p[0] + w[1] * p[1]) as f32)
        };
        points.iter().flat_map(row).collect()
    }

    /// The probability of the lower moon from a row of normalized values, and their tanh.
    fn predict(&self, y: &[f32]) -> (f64, Vec<f64>) {
        let active: Vec<f64> = y.iter().map(|&y| f64::from(y).tanh()).collect();
        let sum: f64 = active.iter().zip(&self.second).map(|(a, w)| a * w).sum();
        (1.0 / (1.0 + (-sum - self.last).exp()), active)
    }

    /// Adds the gradients behind the normalization; the gradient of y, (points, HIDDEN), and the
    /// sum of the losses.
    fn backward(&self, y: &[f32], labels: &[f64], gradient: &mut Self) -> (Vec<f32>, f64) {
        let mut grad_y = Vec::with_capacity(y.len());
        let mut loss = 0.0;
        for (y, label) in y.chunks(HIDDEN).zip(labels) {
            let (p, active) = self.predict(y);
            let chance = if *label > 0.5 { p } else { 1.0 - p };
            loss -= chance.max(f64::MIN_POSITIVE).ln();
            let slope = (p - label) / POINTS as f64;
            gradient.last += slope;
            for (i, a) in active.iter().enumerate() {
                gradient.second[i] += slope * a;
                grad_y.push((slope * self.second[i] * (1.0 - a * a)) as f32);
            }
        }
        (grad_y, loss)
    }
}

/// A training that is under way.
pub struct Training {
    devices: Vec<Device>,
    shards: Vec<Range<usize>>,
    /// One for all ranks, or one for each.
    layers: Vec<SyncBatchNorm>,
    network: Network,
    moons: Moons,
}

impl Training {
    /// A training over these devices, or over the first of them.
    ///
    /// # Errors
    /// [`syncbn::error::ConfigError::NoDevices`] without a device.
    pub fn new(way: Way, devices: &[Device]) -> Result<Self, Error> {
        let devices = if way == Way::One { &devices[..devices.len().min(1)] } else { devices };
        let config = || BatchNormConfig::torch(HIDDEN);
        let layers = match way {
            Way::Local => {
                let alone = |device: &Device| SyncBatchNorm::new(config(), [device.clone()]);
                devices.iter().map(alone).collect::<Result<_, _>>()?
            }
            _ => vec![SyncBatchNorm::new(config(), devices.iter().cloned())?],
        };
        let ranks = devices.len();
        let cut = |rank| rank * POINTS / ranks;
        let shards = (0..ranks).map(|rank| cut(rank)..cut(rank + 1)).collect();
        let devices = devices.to_vec();
        Ok(Self { devices, shards, layers, network: Network::new(), moons: Moons::new() })
    }

    /// Takes a step with the whole batch; the mean loss before it.
    ///
    /// # Errors
    /// Errors of a device. The parameters stay then.
    pub async fn step(&mut self) -> Result<f64, Error> {
        let weight: Vec<f32> = self.network.weight.iter().map(|&w| w as f32).collect();
        let bias: Vec<f32> = self.network.bias.iter().map(|&b| b as f32).collect();
        let mut gradient = Network::zeros();
        let mut loss = 0.0;
        let ranks = self.devices.len();
        // Layers of one rank each, or one layer of all.
        let per_layer = ranks / self.layers.len();
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.set_parameters(Some(&weight), Some(&bias))?;
            let own = index * per_layer..(index + 1) * per_layer;
            let devices = &self.devices[own.clone()];
            let shards = &self.shards[own];
            let rows = |values: &[f32], device: &Device| {
                device.upload(&[values.len() / HIDDEN, HIDDEN], values)
            };
            let mut x = Vec::new();
            for (device, shard) in devices.iter().zip(shards) {
                x.push(rows(&self.network.hidden(&self.moons.points[shard.clone()]), device)?);
            }
            let forward = layer.forward_train(&x).await?;
            let mut grad_y = Vec::new();
            for ((y, device), shard) in forward.output.iter().zip(devices).zip(shards) {
                let labels = &self.moons.labels[shard.clone()];
                let (slopes, sum) =
                    self.network.backward(&y.to_vec().await?, labels, &mut gradient);
                loss += sum;
                grad_y.push(rows(&slopes, device)?);
            }
            let backward = layer.backward(&forward.saved, Backward::of(&x, &grad_y)).await?;
            add(&mut gradient.weight, backward.weight.as_deref()).await?;
            add(&mut gradient.bias, backward.bias.as_deref()).await?;
            for (grad_x, shard) in backward.input.iter().zip(shards) {
                let grad_x = grad_x.to_vec().await?;
                let points = &self.moons.points[shard.clone()];
                for (row, point) in grad_x.chunks(HIDDEN).zip(points) {
                    for (slopes, &g) in gradient.first.iter_mut().zip(row) {
                        slopes[0] += f64::from(g) * point[0];
                        slopes[1] += f64::from(g) * point[1];
                    }
                }
            }
        }
        self.network.descend(gradient);
        Ok(loss / POINTS as f64)
    }

    /// The part of all points that the network tells right in evaluation, with the running
    /// statistics of the first rank, which is the one that is saved.
    ///
    /// # Errors
    /// Errors of the device.
    pub async fn accuracy(&self) -> Result<f64, Error> {
        let (Some(device), Some(layer)) = (self.devices.first(), self.layers.first()) else {
            return Ok(0.0);
        };
        let hidden = self.network.hidden(&self.moons.points);
        let of_first = device.upload(&[POINTS, HIDDEN], &hidden)?;
        let mut x = vec![of_first];
        for device in layer.devices().iter().skip(1) {
            x.push(device.zeros(&[0, HIDDEN])?);
        }
        let y = layer.forward_eval(&x).await?.output;
        let Some(y) = y.first() else { return Ok(0.0) };
        let y = y.to_vec().await?;
        let is_right =
            |(y, label): &(&[f32], &f64)| (self.network.predict(y).0 > 0.5) == (**label > 0.5);
        let right = y.chunks(HIDDEN).zip(&self.moons.labels).filter(is_right).count();
        Ok(right as f64 / POINTS as f64)
    }
}

/// Adds the gradients of all ranks.
async fn add(sum: &mut [f64], ranks: Option<&[Tensor]>) -> Result<(), Error> {
    for rank in ranks.unwrap_or_default() {
        for (sum, value) in sum.iter_mut().zip(rank.to_vec().await?) {
            *sum += f64::from(value);
        }
    }
    Ok(())
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    fn losses(way: Way, ranks: usize) -> (Vec<f64>, f64) {
        pollster::block_on(async {
            let mut training = Training::new(way, &vec![Device::host(); ranks]).unwrap();
            let mut losses = Vec::new();
            for _ in 0..60 {
                losses.push(training.step().await.unwrap());
            }
            (losses, training.accuracy().await.unwrap())
        })
    }

    #[test]
    fn ranks_that_synchronize_learn_what_one_device_learns() {
        let (one, accuracy) = losses(Way::One, 4);
        let (synchronized, _) = losses(Way::Synchronized, 4);
        for (one, other) in one.iter().zip(&synchronized) {
            // y is rounded to f32; sixty steps of a small network multiply that a little.
            assert!((one - other).abs() < 1e-4 * one, "{one} {other}");
        }
        assert!(one[59] < 0.5 * one[0] && accuracy > 0.9, "{one:?} {accuracy}");
    }

    #[test]
    fn ranks_that_do_not_synchronize_learn_something_else() {
        let (one, _) = losses(Way::One, 4);
        let (local, accuracy) = losses(Way::Local, 4);
        assert!((one[0] - local[0]).abs() > 0.01 * one[0], "{} {}", one[0], local[0]);
        // In evaluation the saved rank knows half a moon.
        assert!(accuracy < 0.9, "{accuracy}");
    }
}
