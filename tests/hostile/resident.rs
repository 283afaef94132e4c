//! Layers whose ranks share one GPU.

pub use accuracy::RESIDENT_ULP;

use super::common::epilogue::one_gpu;
use super::{common, devices, problem, stored};

#[path = "../it/on_device/accuracy.rs"]
mod accuracy;
#[path = "../it/on_device/not_finite.rs"]
mod not_finite;
