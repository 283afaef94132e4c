//! Parameter structs of the kernels that walk tiles, and of those that combine a channel's tiles.

use std::mem::{offset_of, size_of};

use bytemuck::{Pod, Zeroable};

use super::ParamsLayout;

params! {
    /// Parameters of the kernels that walk tiles of an activation.
    TileParams {
        /// C.
        channels: u32,
        /// L, or more where the window lies within one channel of one sample; quads of a plane.
        inner: u32,
        /// Tiles of the window.
        tiles: u32,
        /// Tiles after which a segment ends: all values of a channel, or those of one sample.
        segment_tiles: u32,
        /// Values of a segment's last tile.
        last_values: u32,
        /// Position within its sample of the window's first value.
        start: u32,
        /// Number of the window's first tile.
        first_tile: u32,
        /// The window's first channel.
        first_channel: u32,
        /// The channel after its last.
        end_channel: u32,
        /// Invocations per tile, a power of two.
        lanes_per_tile: u32,
        /// Values of a tile that an invocation goes through.
        values_per_lane: u32,
        /// log2 of the invocations of a tile that go side by side through a run of it.
        lanes_per_run_log2: u32,
        /// log2 of the tiles side by side in a workgroup.
        tiles_per_workgroup_log2: u32,
        /// Workgroups that cover the window's channels once.
        blocks: u32,
        /// What a step adds to the position in a sample: 2^lanes_per_run_log2 mod L, or 1024 mod L.
        step_inner: u32,
        /// Channels that a step of 1024 addresses passes, mod C.
        step_channels: u32,
        /// What is added to every address in x.
        x_origin: u32,
        /// Elements of x from one sample to the next.
        x_sample: u32,
        /// Elements of x from one channel to the next.
        x_channel: u32,
        /// Elements of x from one position to the next.
        x_inner: u32,
        /// What one step adds to the address in x.
        x_step: u32,
        /// What is added to the address in x when the position passes L.
        x_wrap: u32,
        /// What is added to every address in grad_output.
        g_origin: u32,
        /// Elements of grad_output from one sample to the next.
        g_sample: u32,
        /// Elements of grad_output from one channel to the next.
        g_channel: u32,
        /// Elements of grad_output from one position to the next.
        g_inner: u32,
        /// What one step adds to the address in grad_output.
        g_step: u32,
        /// What is added to the address in grad_output when the position passes L.
        g_wrap: u32,
        /// Elements of grad_output between values of a quad, in another layout than x.
        g_value_stride: u32,
        /// Address of the first element that is written, for kernels that own words.
        first_element: u32,
        /// The address after the last, or after all that is bound, where quads cover planes.
        end_element: u32,
        /// Neighbours in memory that are of one channel; L where quads cover planes.
        run: u32,
        /// Channel of the element at address 0.
        run_channel: u32,
        /// Address where the next channel begins.
        run_end: u32,
        /// 1 where grad_output has the addresses of x.
        same_layout: u32,
        /// First word of the 4096 values in a mask by address among which address 0 is.
        mask_origin: u32,
        /// Elements, or quads, of these values before address 0.
        mask_offset: u32,
        /// Tiles of this kernel per segment.
        mask_segment_tiles: u32,
        /// Words per invocation and segment.
        mask_segment_words: u32,
        /// Workgroups that cover all channels once.
        mask_blocks: u32,
        /// 1 where samples are padded.
        padded: u32,
        /// Number of the window's first sample among the lengths that are bound.
        first_length: u32,
        /// Positions of that sample before the window's first tile.
        first_position: u32,
        /// What makes an address one from the start of a sample, where words are owned.
        run_start: u32,
        /// 1 where the sums of a tile come with its count.
        keeps_counts: u32,
        /// 1 where a weight is bound.
        has_weight: u32,
        /// 1 where a bias is bound.
        has_bias: u32,
        /// 1 where a cotangent of grad_input is bound.
        has_cotangent: u32,
        /// What an activation multiplies values of 0 and below by, or the alpha of ELU.
        slope: f32,
        /// Number of the activation among the curves, 0 where it is none.
        curve: u32,
        /// What kernels that sum integers take of the values: a range, or which sums.
        takes: u32,
        /// Power of two that scales what is summed (x, or four gradients) into range; usually 1.
        unit: f32,
        /// Values per channel, where what merges ranks is made too; so is all that follows.
        count: f32,
        /// Divisor of m2 for the variance that enters the running one, or of gradients.
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
        /// 1 where the statistics depend on x.
        has_batch_statistics: u32,
        /// 1 where the gradients of the parameters are those of all ranks.
        merges_parameters: u32,
        /// 1 where the gradient of the weight is wanted.
        has_grad_weight: u32,
        /// 1 where that of the bias is wanted.
        has_grad_bias: u32,
        /// 1 where both are added to what is there.
        accumulates: u32,
    }
}

params! {
    /// Parameters of the kernels that combine the tiles of a channel.
    CombineParams {
        /// C.
        channels: u32,
        /// Tiles per channel.
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
        /// N·L, less what is padded.
        values: f32,
        /// The first tile that has a value.
        first_tile: u32,
        /// 1 where the sums of a tile come with its count.
        keeps_counts: u32,
        /// What of the values was taken where integers are summed, as the tiles' kernel says.
        takes: u32,
    }
}
