//! The module on Burn's wgpu devices: against Burn's own `BatchNorm`, against the definition, over
//! two ranks, and when a rank fails. One binary, because linking Burn takes longer than running
//! this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod channels_last;
mod common;
mod conversion;
mod digits;
mod failures;
mod fused;
mod gradients;
mod half;
mod joint;
mod names;
mod on_device;
mod one_rank;
mod order;
mod records;
mod refused;
mod residual;
mod stores;
mod two_ranks;
