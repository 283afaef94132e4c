//! Kernels by themselves: dispatches of plans on buffers that a test fills, run by wgpu alone.
//! `tests/hostile` runs some of them on what a hostile compiler makes of the kernels.

mod centers;
mod covering;
mod finishing;
mod flags;
mod flat;
mod fused;
mod gradients;
mod integers;
mod mask_words;
mod masks;
mod steps;
mod tiles;

use crate::common;
use crate::common::kernel::dispatch;

/// Of the shapes that a test goes through, one in so many.
const ONE_SHAPE_IN: usize = 1;

/// The sources that a kernel is compiled from: its own.
fn sources(own: &str) -> Vec<String> {
    vec![own.to_owned()]
}
