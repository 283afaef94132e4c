//! Double backward of ranks on one device.

use std::ops::Range;

use super::{CHANNEL_SUMS_BYTES, Dispatch, Merge};
use crate::shaders::{CotangentParams, FinalizeDoubleParams, Kernel};

/// Bytes of a channel's cotangents of the parameters' gradients.
const COTANGENTS_BYTES: u64 = 8;

/// What double backward has to do with the parameters, and whether there is a cotangent of the
/// gradient of x.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DoubleParameters {
    /// What the parameters' gradients of all ranks are divided by; `None` for those of the rank.
    pub of_all: Option<f32>,
    /// Whether there is a cotangent of the gradient of x.
    pub has_cotangent: bool,
    /// Whether there are cotangents of the gradients of weight and bias.
    pub has_parameters: [bool; 2],
    /// Whether the gradient with respect to the weight is wanted.
    pub weight: bool,
}

impl Merge {
    /// Where the cotangents of a rank lie, in memory of as many [`bytes`](Self::bytes) as the sums:
    /// they start where the rank's sums do among those.
    pub fn cotangents_slot(&self, rank: usize) -> Range<u64> {
        let Range { start, .. } = self.slot(rank);
        start..start + self.channels as u64 * COTANGENTS_BYTES
    }

    /// What moves a rank's cotangents to their slot.
    pub fn cotangents(&self, has_parameters: [bool; 2]) -> Dispatch<CotangentParams> {
        let [has_weight, has_bias] = has_parameters.map(u32::from);
        let params = CotangentParams { channels: self.channels as u32, has_weight, has_bias };
        self.dispatch(Kernel::GatherCotangents, params)
    }

    /// What a rank's gradients of double backward need: `batch_statistics` says whether the
    /// statistics depend on x.
    pub fn double(
        &self,
        rank: usize,
        batch_statistics: bool,
        of: DoubleParameters,
    ) -> Dispatch<FinalizeDoubleParams> {
        let ranks = self.merged_with(rank);
        let params = FinalizeDoubleParams {
            channels: self.channels as u32,
            rank: rank as u32,
            first_rank: ranks.start,
            end_rank: ranks.end,
            rank_stride: (self.slot_bytes / CHANNEL_SUMS_BYTES) as u32,
            cotangent_stride: (self.slot_bytes / COTANGENTS_BYTES) as u32,
            count: self.count_of(rank) as f32,
            has_batch_statistics: batch_statistics.into(),
            merges_parameters: of.of_all.is_some().into(),
            divisor: of.of_all.unwrap_or(1.0),
            has_cotangent: of.has_cotangent.into(),
            has_parameters: of.has_parameters.contains(&true).into(),
            has_weight_gradient: of.weight.into(),
        };
        self.dispatch(Kernel::FinalizeDouble, params)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::merge;
    use super::*;

    #[test]
    fn cotangents_of_a_rank_start_where_its_sums_do() {
        let merge = merge(&[3, 5], false);
        let params = merge.double(1, true, DoubleParameters::default()).params;
        // 5 pairs are 40 bytes, and a slot of 256 has 32.
        assert_eq!((merge.cotangents_slot(1), merge.slot(1)), (256..296, 256..336));
        assert_eq!((params.cotangent_stride, params.rank_stride, params.count), (32, 16, 8.0));
    }

    #[test]
    fn a_rank_of_its_own_statistics_merges_with_none() {
        let params = merge(&[3, 5], true).double(1, true, DoubleParameters::default()).params;
        assert_eq!((params.first_rank, params.end_rank, params.count), (1, 2, 5.0));
    }
}
