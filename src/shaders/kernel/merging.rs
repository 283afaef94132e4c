//! What kernels read and write that merge ranks on one device.

use super::Kernel;

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
            | Self::FinalizeIntegers(form)
            | Self::CenterRunning(form) => Some(form),
            _ => None,
        }
    }

    /// Whether it combines the tiles of a rank itself.
    pub(in crate::shaders) fn is_of_tiles(self) -> bool {
        matches!(
            self,
            Self::FinalizeStats { sums: RankSums::Tiles, .. } | Self::FinalizeGrad(RankSums::Tiles)
        )
    }
}
