//! PyTorch's defaults, for settings that serialized data does not mention.

use super::{Initializer, Momentum};

pub(super) fn eps() -> f64 {
    1e-5
}

pub(super) fn momentum() -> Momentum {
    Momentum::NewWeight(0.1)
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn ones() -> Initializer {
    Initializer::Ones
}

pub(super) fn zeros() -> Initializer {
    Initializer::Zeros
}
