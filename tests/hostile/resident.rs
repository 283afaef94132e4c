//! Layers whose ranks share one GPU.

pub use accuracy::RESIDENT_ULP;

use super::{common, devices, problem, stored};

#[path = "../resident/accuracy.rs"]
mod accuracy;
#[allow(dead_code)]
#[path = "../resident/layer.rs"]
mod layer;
#[path = "../resident/not_finite.rs"]
mod not_finite;
