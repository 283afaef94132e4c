//! Where one rank is all that merges: its tiles are combined by what would merge ranks, so that a
//! pass has a dispatch less. The bits are those of both kernels.

use super::Merge;
use crate::plan::Dispatch;
use crate::shaders::{
    CombineParams, FinalizeGradParams, FinalizeParams, Kernel, RankSums, Variant,
};

impl Merge {
    /// Whether it takes the tiles of its rank.
    pub fn takes_tiles(&self) -> bool {
        self.counts.len() == 1
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
