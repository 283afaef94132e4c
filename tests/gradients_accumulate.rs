//! Gradients of weight and bias that are added to what their targets hold, as an optimizer's are
//! over several backward passes: on the host, on GPUs, on both at once, and where all ranks share
//! one GPU.
//!
//! `layer` is a layer of any of these kinds with its calls, `bits` holds what targets have to the
//! bit, `calls` the same of other calls, `page` targets that are slices of an application's buffer,
//! `micro_batches` batches that are taken in parts, by steps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "gradients_accumulate/bits.rs"]
mod bits;
#[path = "gradients_accumulate/calls.rs"]
mod calls;
mod common;
#[allow(dead_code)]
#[path = "group_backward/compare.rs"]
mod compare;
#[path = "gradients_accumulate/layer.rs"]
mod layer;
#[path = "gradients_accumulate/micro_batches.rs"]
mod micro_batches;
#[path = "gradients_accumulate/page.rs"]
mod page;
#[allow(dead_code)]
#[path = "group_backward/problem.rs"]
mod problem;
