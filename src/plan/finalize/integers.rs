//! Ranks on one device whose sums are of integers.

use std::ops::Range;

use super::{
    CHANNEL_INTEGERS_BYTES, DeviceCaps, Dispatch, Merge, Momentum, ParameterGradients, RunningForm,
    RunningUpdate, RunningVariance,
};
use crate::error::LimitError;
use crate::plan::Taken;
use crate::shaders::{GradIntegersParams, IntegersParams, Kernel};

/// Bytes of a vector of words.
const VECTOR_BYTES: u64 = 16;

/// A contiguous part of a rank's integers. `shaders/parts/rank_integers.wgsl` has the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// A range, and after it the sums of the integers.
    Integers = 0,
    /// Sums of the integers and their rounding errors.
    Rests = 1,
    /// Sums of the squares of these.
    SquaresOfRests = 2,
}

impl Section {
    /// All sections of statistics; gradients have the first.
    pub const ALL: [Self; 3] = [Self::Integers, Self::Rests, Self::SquaresOfRests];
    /// Those of rounding errors.
    pub const OF_RESTS: [Self; 2] = [Self::Rests, Self::SquaresOfRests];

    /// What the kernels take of the values for it.
    pub fn taken(self) -> Taken {
        match self {
            Self::Integers => Taken::Integers,
            Self::Rests => Taken::Rests,
            Self::SquaresOfRests => Taken::SquaresOfRests,
        }
    }
}

/// The words of a f64, the lower one first.
fn words(value: f64) -> [u32; 2] {
    [value.to_bits() as u32, (value.to_bits() >> 32) as u32]
}

impl Merge {
    /// Refuses what sums of integers on one device cannot be.
    ///
    /// # Errors
    /// [`LimitError`] when a channel has 2³² values or more, or the sums exceed one binding.
    pub fn check_integers(&self, caps: &DeviceCaps) -> Result<(), LimitError> {
        let allowed = u64::from(u32::MAX);
        let found = self.total();
        if found > allowed {
            return Err(LimitError::Values { found, allowed });
        }
        let dims = [self.counts.len(), self.channels];
        caps.check_binding("sums of integers per rank and channel", &dims, self.integers_bytes())?;
        caps.check_binding("grids of channels", &[self.channels], self.grids_bytes())
    }

    /// Bytes of the sums of integers of all ranks.
    pub fn integers_bytes(&self) -> u64 {
        self.rank_bytes().saturating_mul(self.counts.len() as u64)
    }

    fn rank_bytes(&self) -> u64 {
        self.section_bytes * Section::ALL.len() as u64
    }

    /// Where a section of a rank's sums lies among them.
    pub fn integers_slot(&self, rank: usize, section: Section) -> Range<u64> {
        let start = rank as u64 * self.rank_bytes() + section as u64 * self.section_bytes;
        start..start + self.channels as u64 * CHANNEL_INTEGERS_BYTES
    }

    /// Bytes of the grids of all channels with what lies behind them: three vectors of words for a
    /// channel, in forward and in backward.
    pub fn grids_bytes(&self) -> u64 {
        self.channels as u64 * 3 * VECTOR_BYTES
    }

    /// Bytes of the grids alone.
    pub fn wide_grids_bytes(&self) -> u64 {
        self.channels as u64 * VECTOR_BYTES
    }

    /// The dispatch that makes the grids of one of the results from ranges.
    pub fn grids(&self, result: usize) -> Dispatch<IntegersParams> {
        self.dispatch(Kernel::FindGrids, self.integers_params(result))
    }

    /// The dispatch that finds the channels with far outliers from the sums of integers.
    pub fn wide_grids(&self, result: usize) -> Dispatch<IntegersParams> {
        self.dispatch(Kernel::FindWide, self.integers_params(result))
    }

    /// As [`statistics`](Self::statistics), or with `RunningForm::Vectors` as
    /// [`statistics_to_vectors`](Self::statistics_to_vectors), from sums of integers.
    pub fn exact_statistics(
        &self,
        result: usize,
        eps: f64,
        form: RunningForm,
        running_update: Option<RunningUpdate>,
    ) -> Dispatch<IntegersParams> {
        let mut params = self.integers_params(result);
        [params.eps_low, params.eps_high] = words(eps);
        let has_values = params.count > 0;
        if let Some(RunningUpdate { momentum, variance }) = running_update.filter(|_| has_values) {
            params.tracks = 1;
            params.is_cumulative = (momentum == Momentum::Cumulative).into();
            params.set_weight(momentum.new_weight(1));
            if variance == RunningVariance::Unbiased {
                params.divisor = (params.count - 1).max(1);
            }
        } else if form == RunningForm::Vectors {
            // Written in any case, without a value as they were.
            params.tracks = 1;
            params.set_weight(0.0);
        }
        self.dispatch(Kernel::FinalizeIntegers(form), params)
    }

    fn integers_params(&self, result: usize) -> IntegersParams {
        let ranks = self.merged_with(result);
        // Checked before.
        let count = self.count_of(result) as u32;
        IntegersParams {
            channels: self.channels as u32,
            first_rank: ranks.start,
            end_rank: ranks.end,
            rank_stride: (self.rank_bytes() / VECTOR_BYTES) as u32,
            section_stride: (self.section_bytes / VECTOR_BYTES) as u32,
            count,
            divisor: count.max(1),
            ..IntegersParams::default()
        }
    }

    /// The dispatch that makes the grids of the gradients of a result.
    pub fn grad_grids(&self, result: usize) -> Dispatch<GradIntegersParams> {
        self.dispatch(Kernel::FindGradGrids, self.grad_integers_params(result))
    }

    /// As [`gradient`](Self::gradient) with statistics that depend on x, from sums of integers.
    pub fn exact_gradient(
        &self,
        rank: usize,
        wanted: ParameterGradients,
    ) -> Dispatch<GradIntegersParams> {
        let [divisor_low, divisor_high] = words(wanted.of_all.unwrap_or(1.0).into());
        let params = GradIntegersParams {
            merges_parameters: wanted.of_all.is_some().into(),
            divisor_low,
            divisor_high,
            has_grad_weight: wanted.weight.into(),
            has_grad_bias: wanted.bias.into(),
            accumulates: wanted.accumulate.into(),
            ..self.grad_integers_params(rank)
        };
        self.dispatch(Kernel::FinalizeGradIntegers, params)
    }

    fn grad_integers_params(&self, rank: usize) -> GradIntegersParams {
        let IntegersParams { first_rank, end_rank, rank_stride, section_stride, count, .. } =
            self.integers_params(rank);
        GradIntegersParams {
            channels: self.channels as u32,
            rank: rank as u32,
            first_rank,
            end_rank,
            rank_stride,
            section_stride,
            count,
            own_count: self.counts[rank] as u32,
            ..GradIntegersParams::default()
        }
    }
}

impl IntegersParams {
    /// The weight of the batch, and what it leaves of the old value.
    fn set_weight(&mut self, batch_weight: f64) {
        [self.batch_weight_low, self.batch_weight_high] = words(batch_weight);
        [self.old_weight_low, self.old_weight_high] = words(1.0 - batch_weight);
    }
}

/// The kernels between the halves of passes of sums of integers.
pub(super) const KERNELS: [Kernel; 5] = [
    Kernel::FindGrids,
    Kernel::FindWide,
    Kernel::FinalizeIntegers(RunningForm::Entries),
    Kernel::FindGradGrids,
    Kernel::FinalizeGradIntegers,
];

#[cfg(test)]
mod tests {
    use super::super::tests::merge;
    use super::*;

    #[test]
    fn sections_of_a_rank_lie_behind_each_other() {
        let merge = merge(&[3, 5], false);
        // 5 channels of 32 bytes are 160, and a section of 256 has 16 vectors.
        assert_eq!(merge.integers_slot(1, Section::Rests), 1024..1184);
        assert_eq!(merge.integers_bytes(), 1536);
        let params = merge.grids(0).params;
        assert_eq!((params.rank_stride, params.section_stride, params.count), (48, 16, 8));
        let params = merge.exact_gradient(1, ParameterGradients::default()).params;
        assert_eq!((params.count, params.own_count, params.end_rank), (8, 5, 2));
    }

    #[test]
    fn running_vectors_are_written_in_any_case() {
        let [some, none] = [&[3, 5], &[0, 0]].map(|counts| {
            let update = RunningUpdate {
                momentum: Momentum::Decay(0.75),
                variance: RunningVariance::Unbiased,
            };
            let merge = merge(counts, false);
            merge.exact_statistics(0, 0.5, RunningForm::Vectors, Some(update)).params
        });
        assert_eq!((some.tracks, some.divisor, some.batch_weight_high), (1, 7, 0x3fd0_0000));
        assert_eq!((some.eps_high, some.old_weight_high), (0x3fe0_0000, 0x3fe8_0000));
        assert_eq!((none.tracks, none.batch_weight_high), (1, 0));
        assert_eq!((none.old_weight_low, none.old_weight_high), (0, 0x3ff0_0000));
    }

    #[test]
    fn more_values_than_a_word_counts_are_refused() {
        let check = |count| merge(&[count, 1], false).check_integers(&DeviceCaps::PORTABLE);
        let most = u64::from(u32::MAX);
        assert_eq!(check(most - 1), Ok(()));
        assert_eq!(check(most), Err(LimitError::Values { found: most + 1, allowed: most }));
    }
}
