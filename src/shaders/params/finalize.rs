//! Parameter structs of the kernels that merge ranks on the device, and of the one that adds to a
//! gradient.

use std::mem::{offset_of, size_of};

use bytemuck::{Pod, Zeroable};

use super::ParamsLayout;

params! {
    /// Parameters of the kernels that make what normalizes, on the device.
    FinalizeParams {
        /// C.
        channels: u32,
        /// The first of the ranks that merge.
        first_rank: u32,
        /// The rank after the last of them.
        end_rank: u32,
        /// The one of them with most values.
        pivot_rank: u32,
        /// Quadruples from one rank's sums to the next rank's.
        rank_stride: u32,
        /// Values per channel of all these ranks.
        count: f32,
        /// Divisor of m2 for the variance that enters the running one.
        divisor: f32,
        /// Added to the variance under the root.
        eps: f32,
        /// What is added besides, as f32 rounds eps.
        eps_rest: f32,
        /// Weight of the old running value.
        old_weight: f32,
        /// Weight of the batch.
        batch_weight: f32,
        /// 1 where the weight of the batch is 1/batches instead.
        is_cumulative: u32,
        /// 1 where the running statistics are updated.
        tracks: u32,
        /// Of a single rank's tiles, as those that combine them: tiles per channel.
        tiles: u32,
        /// Tiles after which a segment ends.
        segment_tiles: u32,
        /// Values of every tile but a segment's last.
        tile_values: u32,
        /// Values of a segment's last tile.
        last_values: u32,
        /// Invocations per channel, a power of two.
        lanes_per_channel: u32,
        /// log2 of the channels side by side in a workgroup.
        channels_per_workgroup_log2: u32,
        /// The first tile that has a value.
        first_tile: u32,
        /// 1 where the sums of a tile come with its count.
        keeps_counts: u32,
    }
}

params! {
    /// Parameters of the kernel that merges gradient sums on the device.
    FinalizeGradParams {
        /// C.
        channels: u32,
        /// The rank that is written for.
        rank: u32,
        /// The first of the ranks that its statistics were taken of.
        first_rank: u32,
        /// The rank after the last of them.
        end_rank: u32,
        /// Quadruples from one rank's sums to the next rank's.
        rank_stride: u32,
        /// Values per channel of all these ranks.
        count: f32,
        /// 1 where the statistics depend on x.
        has_batch_statistics: u32,
        /// 1 where the gradients of the parameters are those of all ranks.
        merges_parameters: u32,
        /// Divisor of these.
        divisor: f32,
        /// 1 where the gradient of the weight is wanted.
        has_grad_weight: u32,
        /// 1 where that of the bias is wanted.
        has_grad_bias: u32,
        /// 1 where both are added to what is there.
        accumulates: u32,
        /// Of a single rank's tiles, as those that combine them: tiles per channel.
        tiles: u32,
        /// Invocations per channel, a power of two.
        lanes_per_channel: u32,
        /// log2 of the channels side by side in a workgroup.
        channels_per_workgroup_log2: u32,
    }
}

params! {
    /// Parameters of the kernel that adds a vector to another.
    AccumulateParams {
        /// C: values of each.
        channels: u32,
    }
}
