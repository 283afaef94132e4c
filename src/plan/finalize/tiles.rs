//! Where one rank is all that merges: its tiles are combined by what would merge ranks, or, where
//! each channel has one tile, what sums it may do what would merge ranks, and for small tensors what
//! would write outputs. A pass has a dispatch less, or is one. The bits are those of all kernels.

use super::Merge;
use crate::plan::{ApplyPlan, Dispatch, Parts, SumsPlan};
use crate::shaders::{
    CombineParams, FinalizeGradParams, FinalizeParams, Kernel, RankSums, RunningForm, TileParams,
    Variant,
};

/// Bytes of what a pass reads and writes up to which what sums writes outputs too. The last cache of
/// most GPUs holds so many, so what this saves is dispatches. Larger tensors are better written in
/// the order of addresses than tile by tile: a part of a line that leaves the cache costs a read.
const MOST_BYTES_AT_ONCE: u64 = 8 << 20;

impl Merge {
    /// Whether it takes the tiles of its rank.
    pub fn takes_tiles(&self) -> bool {
        self.counts.len() == 1
    }
}

impl SumsPlan {
    /// The kernels that sum the only rank and then do what would merge ranks.
    pub fn finishing_variants(&self) -> impl Iterator<Item = Variant> {
        let partials = self.partials.iter().filter(|_| self.may_finish);
        partials
            .filter_map(|partial| partial.variant.kernel.finishing(RunningForm::Entries))
            .map(Variant::new)
    }

    /// The dispatches that sum the only rank and then do what `finalize` would; `None` where a
    /// channel has several tiles, where a dispatch costs less, or where no kernel does both.
    pub fn finishing(
        &self,
        finalize: &Dispatch<FinalizeParams>,
    ) -> Option<Vec<Dispatch<TileParams>>> {
        let Kernel::FinalizeStats { running, .. } = finalize.variant.kernel else { return None };
        let &FinalizeParams {
            count,
            divisor,
            eps,
            eps_rest,
            old_weight,
            batch_weight,
            is_cumulative,
            tracks,
            // What is known of one rank, and of tiles that the kernel has itself.
            channels: _,
            first_rank: _,
            end_rank: _,
            pivot_rank: _,
            rank_stride: _,
            tiles: _,
            segment_tiles: _,
            tile_values: _,
            last_values: _,
            lanes_per_channel: _,
            channels_per_workgroup_log2: _,
            first_tile: _,
            keeps_counts: _,
        } = &finalize.params;
        self.followed_by(running, |params| TileParams {
            count,
            divisor,
            eps,
            eps_rest,
            old_weight,
            batch_weight,
            is_cumulative,
            tracks,
            ..params
        })
    }

    /// The same of gradient sums.
    pub fn finishing_gradient(
        &self,
        finalize: &Dispatch<FinalizeGradParams>,
    ) -> Option<Vec<Dispatch<TileParams>>> {
        let &FinalizeGradParams {
            count,
            divisor,
            has_batch_statistics,
            merges_parameters,
            has_grad_weight,
            has_grad_bias,
            accumulates,
            // What is known of one rank, and of tiles that the kernel has itself.
            channels: _,
            rank: _,
            first_rank: _,
            end_rank: _,
            rank_stride: _,
            tiles: _,
            lanes_per_channel: _,
            channels_per_workgroup_log2: _,
        } = &finalize.params;
        self.followed_by(RunningForm::Entries, |params| TileParams {
            count,
            divisor,
            has_batch_statistics,
            merges_parameters,
            has_grad_weight,
            has_grad_bias,
            accumulates,
            ..params
        })
    }

    /// The only dispatch of a pass, which sums, does what `finalize` would and then what `apply`
    /// would; `None` where [`finishing`](Self::finishing) is, for larger and padded tensors, and
    /// where no kernel does all of it.
    pub fn writing(
        &self,
        finalize: &Dispatch<FinalizeParams>,
        apply: &ApplyPlan,
    ) -> Option<Dispatch<TileParams>> {
        // Vectors would be a buffer too many.
        let is_layers = finalize.variant.kernel.running() == Some(RunningForm::Entries);
        let finishing = self.finishing(finalize).filter(|_| is_layers)?;
        self.followed_to_the_end(&finishing, apply)
    }

    /// The same of gradient sums.
    pub fn writing_gradient(
        &self,
        finalize: &Dispatch<FinalizeGradParams>,
        apply: &ApplyPlan,
    ) -> Option<Dispatch<TileParams>> {
        self.followed_to_the_end(&self.finishing_gradient(finalize)?, apply)
    }

    /// The kernel that makes a pass of one dispatch, where there is one.
    pub fn writing_variant(&self, apply: &ApplyPlan) -> Option<Variant> {
        let [partial] = &*self.partials else { return None };
        let finishing = self.may_finish.then_some(std::slice::from_ref(partial))?;
        Some(self.followed_to_the_end(finishing, apply)?.variant)
    }

    fn followed_to_the_end(
        &self,
        finishing: &[Dispatch<TileParams>],
        apply: &ApplyPlan,
    ) -> Option<Dispatch<TileParams>> {
        let ([sums], [apply]) = (finishing, &*apply.dispatches) else { return None };
        let parts = Parts { output: apply.parts.output.clone(), ..sums.parts.clone() };
        let bytes = |part: &std::ops::Range<u64>| part.end - part.start;
        // Of forward, g is x.
        let read = bytes(&parts.x).max(bytes(&parts.g));
        if sums.params.padded != 0 || read + bytes(&parts.output) > MOST_BYTES_AT_ONCE {
            return None;
        }
        let TileParams { has_weight, has_bias, slope, curve, .. } = apply.params;
        Some(Dispatch {
            variant: Variant::new(sums.variant.kernel.writing(apply.variant.kernel)?),
            params: TileParams { has_weight, has_bias, slope, curve, ..sums.params },
            workgroups: sums.workgroups,
            parts,
        })
    }

    fn followed_by(
        &self,
        running: RunningForm,
        params: impl Fn(TileParams) -> TileParams,
    ) -> Option<Vec<Dispatch<TileParams>>> {
        if !self.may_finish {
            return None;
        }
        let dispatches = self.partials.iter().map(|partial| {
            let variant = Variant::new(partial.variant.kernel.finishing(running)?);
            Some(Dispatch { variant, params: params(partial.params), ..partial.clone() })
        });
        dispatches.collect()
    }
}

impl Dispatch<FinalizeParams> {
    /// The same of the tiles that `combine` would combine.
    pub fn of_tiles(self, combine: &Dispatch<CombineParams>) -> Self {
        let Kernel::FinalizeStats { running, .. } = self.variant.kernel else { return self };
        let CombineParams {
            tiles,
            segment_tiles,
            tile_values,
            last_values,
            lanes_per_channel,
            channels_per_workgroup_log2,
            first_tile,
            keeps_counts,
            ..
        } = combine.params;
        Self {
            variant: Variant::new(Kernel::FinalizeStats { running, sums: RankSums::Tiles }),
            params: FinalizeParams {
                tiles,
                segment_tiles,
                tile_values,
                last_values,
                lanes_per_channel,
                channels_per_workgroup_log2,
                first_tile,
                keeps_counts,
                ..self.params
            },
            workgroups: combine.workgroups,
            ..self
        }
    }
}

impl Dispatch<FinalizeGradParams> {
    /// The same of the tiles that `combine` would combine.
    pub fn of_tiles(self, combine: &Dispatch<CombineParams>) -> Self {
        let CombineParams { tiles, lanes_per_channel, channels_per_workgroup_log2, .. } =
            combine.params;
        Self {
            variant: Variant::new(Kernel::FinalizeGrad(RankSums::Tiles)),
            params: FinalizeGradParams {
                tiles,
                lanes_per_channel,
                channels_per_workgroup_log2,
                ..self.params
            },
            workgroups: combine.workgroups,
            ..self
        }
    }
}
