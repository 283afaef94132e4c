//! Kernels by themselves: dispatches of plans on buffers that a test fills, run by wgpu alone.
//! `tests/hostile` runs the same tests on what a hostile compiler makes of the kernels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "kernels/centers.rs"]
mod centers;
mod common;
#[path = "kernels/gradients.rs"]
mod gradients;
#[path = "kernels/machine.rs"]
mod machine;

/// The texts that a kernel is compiled from: its own.
fn texts(source: &str) -> Vec<String> {
    vec![source.to_owned()]
}
