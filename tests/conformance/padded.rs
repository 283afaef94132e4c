//! Owns padded samples. Their valid positions are a tensor of the rank by itself, (1, C, V); only
//! calls see the padding.

use syncbn::Layout;

use crate::scenario::RankTensor;

/// The tensors of one rank as a call gets them.
#[derive(Clone, Debug)]
pub struct Padded {
    pub x: RankTensor,
    pub grad_output: RankTensor,
    pub residual: Option<RankTensor>,
    /// Of every sample.
    pub lengths: Vec<u32>,
}

impl Padded {
    /// Where in memory every value lies that counts: channel by channel, sample by sample.
    fn counted(&self) -> Vec<usize> {
        let dims = &self.x.dims;
        let (channels, spatial) = match self.x.layout {
            Layout::ChannelsFirst => (dims[1], &dims[2..]),
            Layout::ChannelsLast => (dims[dims.len() - 1], &dims[1..dims.len() - 1]),
        };
        let per_step: usize = spatial[1..].iter().product();
        let len = spatial[0] * per_step;
        let address = |sample: usize, channel: usize, position: usize| match self.x.layout {
            Layout::ChannelsFirst => (sample * channels + channel) * len + position,
            Layout::ChannelsLast => (sample * len + position) * channels + channel,
        };
        let of_channel = |channel: usize| {
            let samples = self.lengths.iter().enumerate();
            samples.flat_map(move |(sample, &length)| {
                (0..length as usize * per_step)
                    .map(move |position| address(sample, channel, position))
            })
        };
        (0..channels).flat_map(of_channel).collect()
    }

    /// (1, C, V).
    pub fn packed_dims(&self) -> Vec<usize> {
        let dims = &self.x.dims;
        let channels = match self.x.layout {
            Layout::ChannelsFirst => dims[1],
            Layout::ChannelsLast => dims[dims.len() - 1],
        };
        vec![1, channels, self.counted().len() / channels]
    }

    /// What counts of values that lie as x does.
    pub fn packed<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.counted().into_iter().map(|at| values[at]).collect()
    }

    /// What counts of a tensor, as one of its own.
    pub fn packed_tensor(&self, tensor: &RankTensor) -> RankTensor {
        let values = self.packed(&tensor.values);
        RankTensor { dtype: tensor.dtype, ..RankTensor::new(self.packed_dims(), values) }
    }

    /// What counts of a result, and whether the rest of it is 0.
    pub fn gathered(&self, values: &[f64]) -> (Vec<f64>, bool) {
        let mut rest = values.to_vec();
        self.counted().into_iter().for_each(|at| rest[at] = 0.0);
        (self.packed(values), rest.iter().all(|value| *value == 0.0))
    }
}
