//! Gradients of weight and bias that are added to what their targets hold, as an optimizer's are
//! over several backward passes: on the host, on GPUs, on both at once, and where all ranks share
//! one GPU.
//!
//! `layer` is a layer of any of these kinds with its calls, `bits` holds what targets have to the
//! bit, `calls` the same of other calls, `page` targets that are slices of an application's buffer,
//! `micro_batches` batches that are taken in parts, by steps.

mod bits;
mod calls;
mod layer;
mod micro_batches;
mod page;

use crate::common;
use crate::common::backward::{compare, problem};
