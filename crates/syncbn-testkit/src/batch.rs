//! Data of ranks: batches, and the parameters of a layer.

use std::ops::Range;

use syncbn::{Device, SyncBatchNorm, Tensor};

use crate::random::Random;

/// Data of one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
}

impl Batch {
    pub fn new(dims: &[usize], value: impl FnMut(usize) -> f32) -> Self {
        let count = dims.iter().product();
        Self { dims: dims.to_vec(), values: (0..count).map(value).collect() }
    }

    /// Values in −1 … 1.
    pub fn random(dims: &[usize], random: &mut Random) -> Self {
        Self::new(dims, |_| random.next() as f32)
    }

    /// The channel of the value at `index`.
    pub fn channel(&self, index: usize) -> usize {
        channel_of(&self.dims, index)
    }

    /// Some of its samples, as a batch.
    pub fn samples(&self, samples: Range<usize>) -> Self {
        let size: usize = self.dims[1..].iter().product();
        let mut dims = self.dims.clone();
        dims[0] = samples.len();
        Self { dims, values: self.values[samples.start * size..samples.end * size].to_vec() }
    }

    pub fn upload(&self, device: &Device) -> Tensor {
        device.upload(&self.dims, &self.values).expect("an upload")
    }
}

fn channel_of(dims: &[usize], index: usize) -> usize {
    index / dims[2..].iter().product::<usize>() % dims[1]
}

/// The batches, each on the device of its rank.
pub fn upload(group: &SyncBatchNorm, batches: &[Batch]) -> Vec<Tensor> {
    batches.iter().zip(group.devices()).map(|(batch, device)| batch.upload(device)).collect()
}

/// The values of tensors.
pub fn read(tensors: &[Tensor]) -> Vec<Vec<f32>> {
    tensors.iter().map(|tensor| pollster::block_on(tensor.to_vec()).expect("a readback")).collect()
}

/// Weight and bias of a layer.
#[derive(Clone, Debug)]
pub struct Parameters {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Parameters {
    pub fn random(channels: usize, random: &mut Random) -> Self {
        Self { weight: random.values(channels), bias: random.values(channels) }
    }

    pub fn set(&self, group: &mut SyncBatchNorm) {
        group
            .set_parameters(Some(&self.weight), Some(&self.bias))
            .expect("parameters of the right length");
    }
}

/// Normally distributed values, with a mean and a deviation of their own for every rank and
/// channel.
pub fn normal(
    dims: &[&[usize]],
    seed: u64,
    moments: impl Fn(usize, usize) -> (f64, f64),
) -> Vec<Batch> {
    let mut random = Random::new(seed);
    let mut rank_of = |rank: usize, dims: &[usize]| {
        let inner: usize = dims[2..].iter().product();
        Batch::new(dims, |index| {
            let (mean, deviation) = moments(rank, index / inner % dims[1]);
            (mean + deviation * random.normal()) as f32
        })
    };
    dims.iter().enumerate().map(|(rank, dims)| rank_of(rank, dims)).collect()
}

/// The bits of values, for comparisons in which a NaN equals itself.
pub fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    values.iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect()
}
