//! What this crate's own tests, examples and tools reach into. **Unstable**: any release may change
//! or remove what is here.

#[cfg(feature = "gpu")]
mod rewriting;

#[cfg(feature = "gpu")]
pub use rewriting::with_rewritten_kernels;

use crate::config::BatchNormConfig;
use crate::state::StateDict;

pub use crate::checksum::Manifest;
pub use crate::collective::frame::{Frame, FrameError, Header, NodePayload, Payload, Phase};
pub use crate::shape::{Shape, Strides};
pub use crate::stats::normalization::{Centering, GradCentering, Normalization};

macro_rules! modules {
    ($($(#[$doc:meta])* $name:ident = $path:path;)*) => {$(
        $(#[$doc])*
        pub mod $name {
            pub use $path::*;
        }
    )*};
}

modules! {
    /// From shapes to kernels, workgroups and buffers.
    plan = crate::plan;
    /// What a driver is asked at opening.
    probe = crate::probe;
    /// WGSL sources, parameters and bindings.
    shaders = crate::shaders;
    /// The canonical tree over ranks.
    tree = crate::stats::tree;
}

/// The settings of a layer as ranks compare them.
pub fn settings_manifest(config: &BatchNormConfig) -> Manifest {
    config.manifest()
}

/// The state of a layer as ranks compare it.
pub fn state_manifest(state: &StateDict) -> Manifest {
    state.manifest()
}
