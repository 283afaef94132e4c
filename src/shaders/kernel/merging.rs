//! What kernels read and write that merge ranks on one device.

use super::{Active, Kernel};

/// How running statistics lie on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RunningForm {
    /// The layer's: mean, variance and counter of a channel together, updated in place.
    #[default]
    Entries,
    /// The application's: a vector of means and one of variances; updated ones go to others.
    Vectors,
}

/// What a kernel reads that merges ranks on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RankSums {
    /// The sums of every rank.
    #[default]
    Ranks,
    /// Those of the tiles of the one rank, which it combines itself.
    Tiles,
}

impl Kernel {
    /// How the running statistics lie that a kernel reads.
    pub(in crate::shaders) fn running(self) -> Option<RunningForm> {
        match self {
            Self::FinalizeStats { running: form, .. }
            | Self::PartialStats { finishes: Some(form), .. }
            | Self::FinalizeIntegers(form)
            | Self::CenterRunning(form) => Some(form),
            _ => None,
        }
    }

    /// The kernel that sums the only rank, whose channels have one tile each, and then does what
    /// would merge ranks; `None` for a kernel that does not sum for that, or where it would bind
    /// more than eight buffers: where v is formed with a residual.
    pub fn finishing(self, running: RunningForm) -> Option<Self> {
        match self {
            Self::PartialStats { x, elements, subgroups, .. } => {
                Some(Self::PartialStats { x, elements, subgroups, finishes: Some(running) })
            }
            Self::PartialGradSums { upstream, subgroups, .. }
                if !matches!(upstream.active, Active::Recomputed { residual: true, .. }) =>
            {
                Some(Self::PartialGradSums { upstream, subgroups, finishes: true })
            }
            _ => None,
        }
    }

    /// Whether it sums a single rank and goes on to what merges ranks.
    pub(in crate::shaders) fn finishes(self) -> bool {
        matches!(
            self,
            Self::PartialStats { finishes: Some(_), .. }
                | Self::PartialGradSums { finishes: true, .. }
        )
    }

    /// Whether it combines the tiles of a rank itself.
    pub(in crate::shaders) fn is_of_tiles(self) -> bool {
        matches!(
            self,
            Self::FinalizeStats { sums: RankSums::Tiles, .. } | Self::FinalizeGrad(RankSums::Tiles)
        )
    }
}
