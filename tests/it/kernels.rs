//! Kernels by themselves: dispatches of plans on buffers that a test fills, run by wgpu alone.
//! `tests/hostile` runs the same tests on what a hostile compiler makes of the kernels.

mod centers;
mod gradients;
mod machine;

use crate::common;

/// The texts that a kernel is compiled from: its own.
fn texts(source: &str) -> Vec<String> {
    vec![source.to_owned()]
}
