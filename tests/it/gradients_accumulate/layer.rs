//! Layers of either kind, a forward call of one, and the vectors that its gradients go to.

use pollster::block_on;
use syncbn::config::AffineGradient;
use syncbn::tensor::Output;
use syncbn::{Backward, BatchNorm, Device, Forward, Gradients, Saved, SyncBatchNorm, Tensor};

use super::common::*;
use super::problem::Problem;

pub const AFFINE: [AffineGradient; 3] =
    [AffineGradient::Local, AffineGradient::GroupSum, AffineGradient::GroupMean];

/// Where the ranks of a layer are, and where their statistics merge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// On these devices, and on the host.
    Synchronized(Kind),
    /// All on one GPU.
    OnDevice,
}

impl Place {
    pub const ALL: [Self; 4] = [
        Self::Synchronized(Kind::Gpu),
        Self::Synchronized(Kind::Host),
        Self::Synchronized(Kind::Mixed),
        Self::OnDevice,
    ];
}

/// A layer of either kind.
pub enum Layer {
    Synchronized(SyncBatchNorm),
    OnDevice(BatchNorm),
}

impl Layer {
    /// The layer of a problem.
    pub fn new(problem: &Problem, place: Place) -> Self {
        match place {
            Place::Synchronized(kind) => Self::Synchronized(problem.layer(kind)),
            Place::OnDevice => {
                let mut norm = BatchNorm::new(problem.config.clone(), &virtual_gpus()[0]).unwrap();
                norm.set_parameters(problem.weight(), Some(&problem.parameters.bias)).unwrap();
                Self::OnDevice(norm)
            }
        }
    }

    pub fn device(&self, rank: usize) -> &Device {
        match self {
            Self::Synchronized(layer) => &layer.devices()[rank],
            Self::OnDevice(norm) => norm.device(),
        }
    }

    pub fn train<'a, O: Output>(&self, request: impl Into<Forward<'a, O>>) -> Saved {
        match self {
            Self::Synchronized(layer) => block_on(layer.forward_train(request)).unwrap().saved,
            Self::OnDevice(norm) => norm.forward_train(request).unwrap().saved,
        }
    }

    pub fn eval(&self, x: &[Tensor]) -> Saved {
        match self {
            Self::Synchronized(layer) => block_on(layer.forward_eval(x)).unwrap().saved,
            Self::OnDevice(norm) => norm.forward_eval(x).unwrap().saved,
        }
    }

    pub fn backward<O: Output>(&self, saved: &Saved, request: Backward<'_, O>) -> Gradients<O> {
        match self {
            Self::Synchronized(layer) => block_on(layer.backward(saved, request)).unwrap(),
            Self::OnDevice(norm) => norm.backward(saved, request).unwrap(),
        }
    }

    /// The batches, each on the device of its rank.
    pub fn upload(&self, batches: &[Batch]) -> Vec<Tensor> {
        batches.iter().enumerate().map(|(rank, batch)| batch.upload(self.device(rank))).collect()
    }

    /// Vectors of these values for each rank, to be added to.
    pub fn vectors(&self, values: &[Vec<f32>]) -> Vec<Tensor> {
        let upload = |(rank, values): (usize, &Vec<f32>)| {
            self.device(rank).upload(&[values.len()], values).unwrap()
        };
        values.iter().enumerate().map(upload).collect()
    }
}

/// A forward call, and what comes back to it.
pub struct Call {
    pub x: Vec<Tensor>,
    pub g: Vec<Tensor>,
    pub saved: Saved,
}

impl Call {
    pub fn new(layer: &Layer, problem: &Problem) -> Self {
        let x = layer.upload(&problem.batches);
        let g = layer.upload(&problem.grad_outputs);
        let saved = layer.train(&x);
        Self { x, g, saved }
    }

    pub fn request(&self) -> Backward<'_, Vec<Tensor>> {
        Backward::of(&self.x, &self.g)
    }

    /// The gradients of weight and bias as they are without anything to be added to.
    pub fn gradients(&self, layer: &Layer) -> [Vec<Vec<f32>>; 2] {
        let gradients = layer.backward(&self.saved, self.request());
        [gradients.weight, gradients.bias].map(|tensors| read(&tensors.unwrap()))
    }

    /// Adds both of them.
    pub fn accumulate(&self, layer: &Layer, [weight, bias]: &mut [Vec<Tensor>; 2]) {
        layer.backward(
            &self.saved,
            self.request().weight_gradient(weight).bias_gradient(bias).accumulate(),
        );
    }
}

/// One f32 addition for each value.
pub fn sums(old: &[Vec<f32>], new: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let of_rank = |(old, new): (&Vec<f32>, &Vec<f32>)| {
        old.iter().zip(new).map(|(old, new)| old + new).collect()
    };
    old.iter().zip(new).map(of_rank).collect()
}

/// The same bits, or NaN on both sides: which one it is no driver says.
pub fn assert_same(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (rank, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}, rank {rank}");
        for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let is_same =
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
            assert!(
                is_same,
                "{what}, rank {rank}, value {index}: {found:e}, expected {expected:e}"
            );
        }
    }
}
