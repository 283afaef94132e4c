//! Parameters of the kernels that merge sums of integers on the device.

use bytemuck::{Pod, Zeroable};
use std::mem::{offset_of, size_of};

use super::ParamsLayout;

params! {
    /// Parameters of the kernels that make what normalizes of ranges and sums of integers.
    IntegersParams {
        /// C.
        channels: u32,
        /// The first of the ranks that merge.
        first_rank: u32,
        /// The rank after the last of them.
        end_rank: u32,
        /// Vectors of words from one rank to the next.
        rank_stride: u32,
        /// Vectors of words from one section of a rank to the next.
        section_stride: u32,
        /// Values per channel of all these ranks.
        count: u32,
        /// Divisor of m2 for the variance that enters the running one.
        divisor: u32,
        /// Lower word of what is added to the variance under the root, a f64.
        eps_low: u32,
        /// Its upper word.
        eps_high: u32,
        /// Lower word of the weight of the old running value, a f64.
        old_weight_low: u32,
        /// Its upper word.
        old_weight_high: u32,
        /// Lower word of the weight of the batch, a f64.
        batch_weight_low: u32,
        /// Its upper word.
        batch_weight_high: u32,
        /// 1 where the weight of the batch is 1/batches instead.
        is_cumulative: u32,
        /// 1 where the running statistics are updated.
        tracks: u32,
    }
}

params! {
    /// Parameters of the kernels that make gradients of ranges and sums of integers.
    GradIntegersParams {
        /// C.
        channels: u32,
        /// The rank that is written for.
        rank: u32,
        /// The first of the ranks that its statistics were taken of.
        first_rank: u32,
        /// The rank after the last of them.
        end_rank: u32,
        /// Vectors of words from one rank to the next.
        rank_stride: u32,
        /// Vectors of words from one section of a rank to the next.
        section_stride: u32,
        /// Values per channel of all these ranks.
        count: u32,
        /// Those of the rank.
        own_count: u32,
        /// 1 where the gradients of the parameters are those of all ranks.
        merges_parameters: u32,
        /// Lower word of the divisor of these, a f64.
        divisor_low: u32,
        /// Its upper word.
        divisor_high: u32,
        /// 1 where the gradient of the weight is wanted.
        has_grad_weight: u32,
        /// 1 where that of the bias is wanted.
        has_grad_bias: u32,
        /// 1 where both are added to what is there.
        accumulates: u32,
    }
}
