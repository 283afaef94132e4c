//! Times the passes of syncbn beside a copy that moves the same bytes, in turn on the same adapter.
//!
//! The code that the programs `bench` and `report` share. The course of one workload:
//!
//! ```text
//! random tensors, several sets
//!     ->  forward, backward, evaluation, each in turn with the copy  ->  a line of the output each
//!     ->  outputs of one set, checked once against the definition in f64
//! ```

#![allow(missing_docs, reason = "programs of this repository alone use it")]

pub mod awake;
pub mod check;
pub mod copy;
pub mod devices;
pub mod exchange;
pub mod inputs;
pub mod layer;
pub mod measure;
pub mod names;
pub mod output;
pub mod run;
pub mod timestamps;
pub mod timing;
pub mod workloads;
