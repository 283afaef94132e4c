//! Passes of a single rank with fewer kernels: the kernel that merges ranks combines the tiles; the
//! one that sums finishes channels of one tile; for small tensors it writes the outputs, too. The
//! bits are those of all kernels.

use super::Merge;
use crate::plan::{ApplyPlan, Dispatch, LayerFlags, Parts, SumsPlan};
use crate::shaders::{
    CombineParams, FinalizeGradParams, FinalizeParams, Kernel, RankSums, RunningForm, TileParams,
    Variant,
};

/// Most bytes of activations that a pass in one kernel binds. The last cache of most GPUs holds so
/// many, and the kernel saves dispatches. Larger tensors are better written in the order of
/// addresses than tile by tile: a part of a line that leaves the cache costs a read.
pub(in crate::plan) const MOST_FUSED_BYTES: u64 = 8 << 20;

impl Merge {
    /// Whether it takes the tiles of its rank.
    pub fn takes_tiles(&self) -> bool {
        self.counts.len() == 1
    }
}

impl SumsPlan {
    /// The kernels that sum the only rank and then do what would merge ranks; fused with `apply`,
    /// too, where that is all of a pass.
    pub fn finishing_variants(&self, apply: Option<&ApplyPlan>) -> Vec<Variant> {
        let finishing = self.followed_by(RunningForm::Entries, |params| params).unwrap_or_default();
        let fused = apply.and_then(|apply| Self::fused(&finishing, apply));
        finishing.iter().chain(&fused).map(|dispatch| dispatch.variant).collect()
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

    /// The only dispatch of a pass: the one of `finishing` fused with `apply`. `None` for larger and
    /// for padded tensors, and where no kernel does all of it.
    pub fn fused(
        finishing: &[Dispatch<TileParams>],
        apply: &ApplyPlan,
    ) -> Option<Dispatch<TileParams>> {
        let ([sums], [apply]) = (finishing, &*apply.dispatches) else { return None };
        let variant = Variant::new(sums.variant.kernel.fused(apply.variant.kernel)?);
        let parts = Parts { output: apply.parts.output.clone(), ..sums.parts.clone() };
        let bound = variant.bindings().iter().filter_map(|binding| parts.of_role(binding.role));
        let bytes: u64 = bound.map(|part| part.end - part.start).sum();
        if sums.params.padded != 0 || bytes > MOST_FUSED_BYTES {
            return None;
        }
        let mut params = sums.params;
        LayerFlags::copy(&apply.params, &mut params);
        Some(Dispatch { variant, params, workgroups: sums.workgroups, parts })
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
