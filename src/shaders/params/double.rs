//! Parameter structs of double backward on the device.

use std::mem::{offset_of, size_of};

use bytemuck::{Pod, Zeroable};

use super::ParamsLayout;

params! {
    /// Parameters of the kernel that gathers the cotangents of the parameters' gradients.
    CotangentParams {
        /// C.
        channels: u32,
        /// 1 where there is one of the weight's.
        has_weight: u32,
        /// 1 where there is one of the bias's.
        has_bias: u32,
    }
}

params! {
    /// Parameters of the kernel that merges the sums of double backward on the device.
    FinalizeDoubleParams {
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
        /// Pairs from one rank's cotangents to the next rank's.
        cotangent_stride: u32,
        /// Values per channel of all these ranks.
        count: f32,
        /// 1 where the statistics depend on x.
        has_batch_statistics: u32,
        /// 1 where the gradients of the parameters are those of all ranks.
        merges_parameters: u32,
        /// Divisor of these.
        divisor: f32,
        /// 1 where there are sums with a cotangent of grad_input.
        has_cotangent: u32,
        /// 1 where there are cotangents of the parameters' gradients.
        has_parameters: u32,
        /// 1 where the gradient with respect to the weight is wanted.
        has_weight_gradient: u32,
    }
}
