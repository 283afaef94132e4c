//! What the kernels of backward read.

use super::Elements;
use crate::shaders::storage::Storage;

/// Which value a bit of a mask stands for. A bit is 1 where v, what enters the activation, is above
/// 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaskOrder {
    /// A word holds the 32 values of a tile that one invocation of a kernel that writes goes
    /// through.
    ByInvocation,
    /// A word holds values at 32 addresses, four by four, as kernels own them that write in the
    /// order of addresses; `shaders/parts/mask_by_address.wgsl` has the formula.
    ByAddress,
}

/// How backward knows where the activation was active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Active {
    /// There is no activation.
    #[default]
    Everywhere,
    /// v is formed again, from x and, where one was added, from the residual.
    Recomputed {
        /// A residual was added.
        residual: bool,
        /// The activation is a curve, and not two slopes.
        curved: bool,
    },
    /// Forward kept a mask.
    Masked(MaskOrder),
}

impl Active {
    /// How the mask lies, where there is one.
    pub(crate) fn mask_order(self) -> Option<MaskOrder> {
        match self {
            Self::Masked(order) => Some(order),
            Self::Everywhere | Self::Recomputed { .. } => None,
        }
    }
}

/// What the kernels of backward depend on: what they read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Storage of x and of the residual.
    pub x: Storage,
    /// Storage of grad_output.
    pub grad_output: Storage,
    /// What an invocation loads at once.
    pub elements: Elements,
    /// The values of an element of grad_output are strided, as it is in another layout than x;
    /// without meaning for single values.
    pub strided: bool,
    /// How backward knows where the activation was active.
    pub active: Active,
}
