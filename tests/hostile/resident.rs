//! Layers whose ranks share one GPU.

pub use accuracy::RESIDENT_ULP;

use super::{common, devices, problem, stored};

#[path = "../on_device/accuracy.rs"]
mod accuracy;
#[allow(dead_code)]
#[path = "../on_device/layer.rs"]
mod layer;
#[path = "../on_device/not_finite.rs"]
mod not_finite;
