//! Padded batches: packed values spread over samples, with what must not leak between them.

use syncbn::{Backward, Device, Error, Forward, SyncBatchNorm, Tensor};

use super::common::epilogue::problem::{Pass, Problem, Uses};
use super::common::storage::{Layouts, read_as, rounded, upload_as, zeros_as};
use super::common::*;
use pollster::block_on;
use syncbn::DType;

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
    #[allow(dead_code, reason = "for binaries that have fewer tests")]
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
    #[allow(dead_code, reason = "for binaries that have fewer tests")]
    pub fn spread_back(&self, padded: &[f32]) -> Vec<f32> {
        self.order().into_iter().map(|index| padded[index]).collect()
    }
}

/// The tensors of a call, in the storage types of the problem.
pub struct Tensors {
    pub x: Vec<Tensor>,
    pub residuals: Option<Vec<Tensor>>,
    pub g: Vec<Tensor>,
}

pub fn tensors(
    problem: &Problem,
    ranks: &[Padded],
    devices: &[Device],
    layouts: Layouts,
) -> Tensors {
    let spread = |batches: &[Batch], other: bool| -> Vec<Tensor> {
        let of_ranks = batches.iter().zip(ranks).zip(devices).zip(&problem.types);
        let upload = |(((batch, rank), device), types): (((&Batch, &Padded), &Device), _)| {
            let types: &super::common::storage::Types = types;
            let (dtype, layout) =
                if other { (types.other, layouts.g) } else { (types.x, layouts.x) };
            upload_as(device, &rank.spread(batch, dtype), dtype, layout)
        };
        of_ranks.map(upload).collect()
    };
    Tensors {
        x: spread(&problem.x, false),
        residuals: problem.residuals.as_deref().map(|batches| spread(batches, false)),
        g: spread(&problem.g, true),
    }
}

pub fn lists(ranks: &[Padded]) -> Vec<Vec<u32>> {
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
    let Tensors { x, residuals, g } = tensors(problem, ranks, layer.devices(), layouts);
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
    let mut forward = Forward::of(&x).lengths(lists(ranks));
    if let Some(residuals) = &residuals {
        forward = forward.residual(residuals);
    }
    let forward = forward.write_to(&mut outputs);
    let saved = match uses {
        Uses::Group => block_on(layer.forward_train(forward)),
        Uses::Running => block_on(layer.forward_eval(forward)),
    }
    .map_err(failed)?
    .saved;
    let mut backward = Backward::of(&x, &g);
    if saved.needs_residual() {
        backward = backward.residual(residuals.as_ref().expect("a residual"));
    }
    let backward = block_on(layer.backward(&saved, backward)).map_err(failed)?;
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
