//! Padded batches: packed values spread over samples, with what must not leak between them.
//!
//! `check` has batches of many forms, and compares.

mod check;

pub use check::{Amount, check_all};

use pollster::block_on;
use syncbn::{DType, Device, Error, SyncBatchNorm, Tensor};

use super::problem::{Pass, Problem, Tensors, Uses};
use crate::batch::{Batch, read};
use crate::random::Random;
use crate::storage::{Layouts, Types, read_as, rounded, zeros_as};

/// One rank of a padded batch: (N, C, T, …) and the lengths of its samples.
#[derive(Clone, Debug)]
pub struct Padded {
    pub dims: Vec<usize>,
    pub lengths: Vec<u32>,
}

impl Padded {
    pub fn new(dims: &[usize], lengths: &[u32]) -> Self {
        assert_eq!(dims[0], lengths.len());
        Self { dims: dims.to_vec(), lengths: lengths.to_vec() }
    }

    /// Lengths from 0 to T, in disorder.
    pub fn random(dims: &[usize], random: &mut Random) -> Self {
        let lengths: Vec<u32> = (0..dims[0]).map(|_| random.below(dims[2] + 1) as u32).collect();
        Self::new(dims, &lengths)
    }

    /// Positions that count, by sample, and L.
    fn positions(&self) -> (Vec<usize>, usize) {
        let per_step: usize = self.dims[3..].iter().product();
        let counted = self.lengths.iter().map(|&length| length as usize * per_step);
        (counted.collect(), self.dims[2] * per_step)
    }

    /// (1, C, V): what counts, as one sample.
    pub fn packed_dims(&self) -> Vec<usize> {
        vec![1, self.dims[1], self.positions().0.iter().sum()]
    }

    /// The index of every packed value, (C, V), among those of the padded batch.
    fn order(&self) -> Vec<usize> {
        let (positions, len) = self.positions();
        let channels = self.dims[1];
        let run = |channel: usize, sample: usize| {
            let start = (sample * channels + channel) * len;
            start..start + positions[sample]
        };
        let of_channel =
            |channel| (0..positions.len()).flat_map(move |sample| run(channel, sample));
        (0..channels).flat_map(of_channel).collect()
    }

    /// Packed values where they count, and elsewhere what must not leak.
    pub fn spread(&self, packed: &Batch, dtype: DType) -> Batch {
        let garbage = [f32::NAN, f32::INFINITY, 1e30, f32::NEG_INFINITY, -3e38];
        let mut padded = Batch::new(&self.dims, |index| rounded(garbage[index % 5], dtype));
        for (index, value) in self.order().into_iter().zip(&packed.values) {
            padded.values[index] = *value;
        }
        padded
    }

    /// The packed values of a padded result, which is 0 everywhere else.
    pub fn gather(&self, padded: &[f32]) -> Result<Vec<f32>, String> {
        let order = self.order();
        let mut rest = padded.to_vec();
        order.iter().for_each(|&index| rest[index] = 0.0);
        if let Some(index) = rest.iter().position(|&value| value != 0.0) {
            return Err(format!("{self:?}: {} at padded {index}", rest[index]));
        }
        Ok(order.into_iter().map(|index| padded[index]).collect())
    }

    /// The packed values of a padded batch.
    pub fn spread_back(&self, padded: &[f32]) -> Vec<f32> {
        self.order().into_iter().map(|index| padded[index]).collect()
    }
}

/// The tensors of a call, in the storage types of the problem.
fn tensors(problem: &Problem, ranks: &[Padded], devices: &[Device], layouts: Layouts) -> Tensors {
    let spread = |batches: &[Batch], dtype: fn(&Types) -> DType| -> Vec<Batch> {
        let of_ranks = batches.iter().zip(ranks).zip(&problem.types);
        of_ranks.map(|((batch, rank), types)| rank.spread(batch, dtype(types))).collect()
    };
    let of_x = |batches: &[Batch]| spread(batches, |types| types.x);
    let padded = Problem {
        x: of_x(&problem.x),
        residuals: problem.residuals.as_deref().map(of_x),
        g: spread(&problem.g, |types| types.other),
        ..problem.clone()
    };
    padded.tensors_as(devices, &[layouts])
}

fn lists(ranks: &[Padded]) -> Vec<Vec<u32>> {
    ranks.iter().map(|rank| rank.lengths.clone()).collect()
}

/// A call with lengths and its backward, as the packed values that came of them.
pub fn pass(
    problem: &Problem,
    ranks: &[Padded],
    layer: &SyncBatchNorm,
    layouts: Layouts,
    uses: Uses,
) -> Result<Pass, String> {
    let failed = |error: Error| error.to_string();
    let tensors = tensors(problem, ranks, layer.devices(), layouts);
    let mut outputs: Vec<Tensor> = layer
        .devices()
        .iter()
        .zip(ranks)
        .zip(&problem.types)
        .map(|((device, rank), types)| {
            let like = Batch::new(&rank.dims, |_| 0.0);
            zeros_as(device, &like, types.other, layouts.x)
        })
        .collect();
    let forward = tensors.forward().lengths(lists(ranks)).write_to(&mut outputs);
    let saved = match uses {
        Uses::Group => block_on(layer.forward_train(forward)),
        Uses::Running => block_on(layer.forward_eval(forward)),
    }
    .map_err(failed)?
    .saved;
    let needed =
        if saved.needs_residual() { tensors.backward() } else { tensors.backward_without() };
    let backward = block_on(layer.backward(&saved, needed)).map_err(failed)?;
    let gathered = |tensors: &[Tensor]| -> Result<Vec<Vec<f32>>, String> {
        tensors
            .iter()
            .zip(ranks)
            .map(|(tensor, rank)| rank.gather(&read_padded(tensor, rank)))
            .collect()
    };
    Ok(Pass {
        y: gathered(&outputs)?,
        grad_inputs: gathered(&backward.input)?,
        grad_residuals: backward.residual.as_deref().map(gathered).transpose()?,
        grad_weights: backward.weight.as_deref().map(read),
        grad_biases: backward.bias.as_deref().map(read),
    })
}

/// All values of a padded result, channels first.
pub fn read_padded(tensor: &Tensor, rank: &Padded) -> Vec<f32> {
    read_as(tensor, &Batch::new(&rank.dims, |_| 0.0))
}
