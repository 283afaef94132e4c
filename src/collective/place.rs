//! The place of an operation, for errors. It becomes text only where an error needs it.

use std::fmt;
use std::sync::Arc;

use super::Phase;

/// Where a rank is: an exchange of a layer, or of the process group itself.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Number and name of the layer.
    pub layer: Option<(u64, Arc<str>)>,
    pub phase: Phase,
    /// Earlier exchanges of the layer, or of the group itself.
    pub step: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, phase, step } = self;
        match layer {
            Some((layer, name)) if name.is_empty() => {
                write!(f, "layer {layer}, {phase}, exchange {step}")
            }
            Some((layer, name)) => write!(f, "layer {layer} {name:?}, {phase}, exchange {step}"),
            None => write!(f, "{phase}, exchange {step} of the group"),
        }
    }
}
