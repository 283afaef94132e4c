//! The module on Burn's wgpu devices: against Burn's own `BatchNorm`, against the definition, over
//! two ranks, and when a rank fails. One binary, because linking Burn takes longer than running
//! this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod digits;
mod failures;
mod half;
mod one_rank;
mod order;
mod records;
mod two_ranks;
