//! Between the two halves of a pass whose ranks all lie on one device: the kernels that merge their
//! sums there.

mod double;
mod integers;
mod tiles;

pub use double::DoubleParameters;
pub use integers::Section;
pub(super) use tiles::MOST_FUSED_BYTES;

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::{CHANNEL_INTEGERS_BYTES, CHANNEL_SUMS_BYTES, DeviceCaps, Dispatch, Parts};
use crate::config::{Momentum, RunningVariance};
use crate::error::LimitError;
use crate::shaders::{
    FinalizeGradParams, FinalizeParams, Kernel, RankSums, RunningForm, Variant, WORKGROUP_SIZE,
};

/// The kernels between the halves, as every plan asks for them; `exact` where the sums of a batch
/// are of integers.
pub fn finalizing_variants(exact: bool) -> Vec<Variant> {
    let form = RunningForm::Entries;
    let mut kernels = vec![Kernel::CenterRunning(form)];
    for sums in [RankSums::Ranks, RankSums::Tiles] {
        kernels.push(Kernel::FinalizeGrad(sums));
        if !exact {
            kernels.push(Kernel::FinalizeStats { running: form, sums });
        }
    }
    if exact {
        kernels.extend(integers::KERNELS);
    }
    kernels.into_iter().map(Variant::new).collect()
}

/// The weight of a rank in a merge, as the kernels read it.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct RankWeight {
    /// Values per channel of the rank.
    pub count: f32,
    /// `count` divided by the values per channel of all ranks that merge with it.
    pub weight: f32,
}

/// How a call updates running statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunningUpdate {
    /// The weight of the batch.
    pub momentum: Momentum,
    /// Which variance of the batch enters them.
    pub variance: RunningVariance,
}

/// Which gradients of the parameters are wanted of a rank, and of which sums they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ParameterGradients {
    /// Whether that of the weight is wanted.
    pub weight: bool,
    /// Whether that of the bias is wanted.
    pub bias: bool,
    /// What the sums of all ranks are divided by; `None` for those of the rank.
    pub of_all: Option<f32>,
    /// Whether they are added to what is there.
    pub accumulate: bool,
}

/// The ranks of one device whose sums merge there: how many values each has, and where its sums
/// lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    counts: Vec<u64>,
    channels: usize,
    /// Bytes from one rank's sums to the next rank's.
    slot_bytes: u64,
    /// Bytes of a section of a rank's sums of integers.
    section_bytes: u64,
    /// Whether each rank's statistics are of its own values.
    per_rank: bool,
    workgroups: [u32; 2],
}

impl Merge {
    /// Plans the merge of ranks with so many values per channel. With `per_rank` each rank keeps
    /// statistics of its own.
    ///
    /// # Errors
    /// [`LimitError`] when the sums of all ranks exceed one binding, or the channels a dispatch.
    pub fn new(
        counts: Vec<u64>,
        channels: usize,
        per_rank: bool,
        caps: &DeviceCaps,
    ) -> Result<Self, LimitError> {
        // A multiple of a quadruple too: the alignment is a power of two of at least 32.
        let aligned =
            |bytes: u64| bytes.next_multiple_of(u64::from(caps.offset_alignment_bytes).max(32));
        let slot_bytes = aligned(channels as u64 * CHANNEL_SUMS_BYTES);
        let section_bytes = aligned(channels as u64 * CHANNEL_INTEGERS_BYTES);
        let bytes = slot_bytes.saturating_mul(counts.len() as u64);
        caps.check_binding("sums per rank and channel", &[counts.len(), channels], bytes)?;
        let blocks = (channels as u64).div_ceil(u64::from(WORKGROUP_SIZE));
        let workgroups = caps.workgroups(blocks, &[channels])?;
        Ok(Self { counts, channels, slot_bytes, section_bytes, per_rank, workgroups })
    }

    /// Bytes of the sums of all ranks.
    pub fn bytes(&self) -> u64 {
        self.slot_bytes * self.counts.len() as u64
    }

    /// Where the sums of a rank lie among them.
    pub fn slot(&self, rank: usize) -> Range<u64> {
        let start = rank as u64 * self.slot_bytes;
        start..start + self.channels as u64 * CHANNEL_SUMS_BYTES
    }

    /// The weight of every rank. A rank that merges with none has all of its values.
    pub fn rank_weights(&self) -> Vec<RankWeight> {
        let total = self.total() as f64;
        let weight = |&count: &u64| if self.per_rank { 1.0 } else { count as f64 / total.max(1.0) };
        self.counts
            .iter()
            .map(|count| RankWeight { count: *count as f32, weight: weight(count) as f32 })
            .collect()
    }

    /// Values per channel of all ranks.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, &count| total.saturating_add(count))
    }

    /// Values per channel that the statistics of a rank are of.
    pub fn count_of(&self, rank: usize) -> u64 {
        if self.per_rank { self.counts[rank] } else { self.total() }
    }

    /// Number of results: one for all ranks, or one for each.
    pub fn results(&self) -> usize {
        if self.per_rank { self.counts.len() } else { 1 }
    }

    /// The ranks that merge with a rank.
    fn merged_with(&self, rank: usize) -> Range<u32> {
        if self.per_rank { rank as u32..rank as u32 + 1 } else { 0..self.counts.len() as u32 }
    }

    /// The dispatch that makes one of the results; running statistics are updated where there is a
    /// value.
    pub fn statistics(
        &self,
        result: usize,
        eps: f64,
        running_update: Option<RunningUpdate>,
    ) -> Dispatch<FinalizeParams> {
        let ranks = self.merged_with(result);
        let count = self.count_of(result);
        let most = ranks.clone().rev().max_by_key(|&rank| self.counts[rank as usize]);
        let mut params = FinalizeParams {
            first_rank: ranks.start,
            end_rank: ranks.end,
            pivot_rank: most.unwrap_or(0),
            rank_stride: (self.slot_bytes / CHANNEL_SUMS_BYTES) as u32,
            count: count as f32,
            divisor: count.max(1) as f32,
            ..self.params(eps)
        };
        if let Some(RunningUpdate { momentum, variance }) = running_update.filter(|_| count > 0) {
            params.tracks = 1;
            params.is_cumulative = (momentum == Momentum::Cumulative).into();
            let batch_weight = momentum.new_weight(1);
            (params.old_weight, params.batch_weight) =
                ((1.0 - batch_weight) as f32, batch_weight as f32);
            if variance == RunningVariance::Unbiased {
                params.divisor = (count - 1).max(1) as f32;
            }
        }
        self.dispatch(statistics_kernel(RunningForm::Entries), params)
    }

    /// As [`statistics`](Self::statistics) of all ranks, with running statistics that are vectors:
    /// the updated ones are written in any case, without a value as they were.
    pub fn statistics_to_vectors(
        &self,
        eps: f64,
        update: RunningUpdate,
    ) -> Dispatch<FinalizeParams> {
        let mut params = self.statistics(0, eps, Some(update)).params;
        if params.tracks == 0 {
            (params.tracks, params.old_weight, params.batch_weight) = (1, 1.0, 0.0);
        }
        self.dispatch(statistics_kernel(RunningForm::Vectors), params)
    }

    /// The dispatch that makes the one result where running statistics normalize.
    pub fn running(&self, eps: f64, form: RunningForm) -> Dispatch<FinalizeParams> {
        self.dispatch(Kernel::CenterRunning(form), self.params(eps))
    }

    fn params(&self, eps: f64) -> FinalizeParams {
        FinalizeParams {
            channels: self.channels as u32,
            eps: eps as f32,
            eps_rest: (eps - f64::from(eps as f32)) as f32,
            ..FinalizeParams::default()
        }
    }

    /// What a rank's gradients need: `batch_statistics` says whether the statistics depend on x.
    pub fn gradient(
        &self,
        rank: usize,
        batch_statistics: bool,
        wanted: ParameterGradients,
    ) -> Dispatch<FinalizeGradParams> {
        let ranks = self.merged_with(rank);
        let params = FinalizeGradParams {
            channels: self.channels as u32,
            rank: rank as u32,
            first_rank: ranks.start,
            end_rank: ranks.end,
            rank_stride: (self.slot_bytes / CHANNEL_SUMS_BYTES) as u32,
            count: self.count_of(rank) as f32,
            has_batch_statistics: batch_statistics.into(),
            merges_parameters: wanted.of_all.is_some().into(),
            divisor: wanted.of_all.unwrap_or(1.0),
            has_grad_weight: wanted.weight.into(),
            has_grad_bias: wanted.bias.into(),
            accumulates: wanted.accumulate.into(),
            ..FinalizeGradParams::default()
        };
        self.dispatch(Kernel::FinalizeGrad(RankSums::Ranks), params)
    }

    fn dispatch<P>(&self, kernel: Kernel, params: P) -> Dispatch<P> {
        Dispatch {
            variant: Variant::new(kernel),
            params,
            workgroups: self.workgroups,
            parts: Parts::NONE,
        }
    }
}

/// What makes statistics of the sums of ranks.
fn statistics_kernel(running: RunningForm) -> Kernel {
    Kernel::FinalizeStats { running, sums: RankSums::Ranks }
}

#[cfg(test)]
mod tests;
