//! Tests of the crate as a user calls it: one binary, so that it is compiled and linked once.
//!
//! A module is a subject; its tests are named after it. Five binaries need a process of their own:
//! `conformance` has its own harness, `swiftshader` two drivers, `hostile` devices whose kernels
//! are rewritten, `frames` an allocator that counts, `host_pools` rayon's global pool. Three are
//! separate to be built and run alone: `architecture` reads the sources as text, `checkpoints`
//! needs no GPU, and `reproducible` has one property, over batches that are drawn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod all_reduce;
mod collective;
mod common;
mod conventions;
mod cost;
mod double_backward;
mod epilogue;
mod faults;
mod gradients_accumulate;
mod group_accuracy;
mod group_arguments;
mod group_backward;
mod group_devices;
mod group_forward;
mod host;
mod joint;
mod kernels;
mod large;
mod layer_into;
mod memory;
mod merging;
mod on_device;
mod opening;
mod overlapping;
mod padded;
mod probe;
mod process_groups;
mod recipes;
mod renorm;
mod rounding;
mod shaders;
mod shared_layer;
mod spans;
mod state;
mod stats_properties;
mod steps;
mod storage;
mod survivors;
