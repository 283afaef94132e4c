//! What kernels read and write that merge ranks on one device.

use super::{Active, Elements, GradInput, Kernel, Normalize, Upstream};
use crate::dtype::DType;

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

/// What the kernel that sums x of a single rank goes on to, whose channels have one tile each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// To what [`FinalizeStats`](Kernel::FinalizeStats) makes, with running statistics of this
    /// form.
    Statistics(RunningForm),
    /// To the same, with those of the layer, and then to y: forward in one kernel.
    Output {
        /// Type of y.
        y: DType,
        /// There is an activation.
        activation: bool,
        /// It is a curve, and not two slopes.
        curved: bool,
    },
}

/// The same of the kernel that sums gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishGrad {
    /// To what [`FinalizeGrad`](Kernel::FinalizeGrad) makes.
    Coefficients,
    /// To the gradients of the parameters, and then to that of the input: backward in one kernel.
    Input,
}

impl Kernel {
    /// How the running statistics lie that a kernel reads.
    pub(in crate::shaders) fn running(self) -> Option<RunningForm> {
        match self {
            Self::FinalizeStats { running: form, .. }
            | Self::PartialStats { finishes: Some(Finish::Statistics(form)), .. }
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
                let finishes = Some(Finish::Statistics(running));
                Some(Self::PartialStats { x, elements, subgroups, finishes })
            }
            Self::PartialGradSums { upstream, subgroups, .. }
                if !matches!(upstream.active, Active::Recomputed { residual: true, .. }) =>
            {
                let finishes = Some(FinishGrad::Coefficients);
                Some(Self::PartialGradSums { upstream, subgroups, finishes })
            }
            _ => None,
        }
    }

    /// This kernel of [`finishing`](Self::finishing) fused with `apply`, which writes an
    /// activation: the only kernel of its pass. `None` where no kernel does all of it: where that
    /// would bind more than eight buffers, for a pass in place, where the statistics are constants
    /// for the gradient, where an invocation owns words of the output, or where quads cover planes,
    /// of which it would write values of the neighbours.
    pub fn fused(self, apply: Self) -> Option<Self> {
        match (self, apply) {
            (
                Self::PartialStats {
                    x: _,
                    elements,
                    subgroups,
                    finishes: Some(Finish::Statistics(RunningForm::Entries)),
                },
                Self::Normalize(Normalize {
                    x,
                    y,
                    residual: false,
                    activation,
                    curved,
                    mask: None,
                    in_place: false,
                    ..
                }),
            ) => {
                let finishes = Some(Finish::Output { y, activation, curved });
                let is_written = match elements {
                    Elements::Covering => false,
                    Elements::Single => y == DType::F32,
                    _ => true,
                };
                is_written.then_some(Self::PartialStats { x, elements, subgroups, finishes })
            }
            (
                Self::PartialGradSums { upstream, subgroups, finishes: Some(_) },
                Self::GradInput(GradInput {
                    batch_statistics: true,
                    grad_residual: false,
                    in_place: false,
                    upstream: Upstream { x, grad_output, .. },
                }),
            ) => {
                // It writes, so it converts as the kernel that writes.
                let upstream = Upstream { x, grad_output, ..upstream };
                let finishes = Some(FinishGrad::Input);
                let is_written = match upstream.elements {
                    Elements::Covering => false,
                    Elements::Single => upstream.x.dtype() == DType::F32,
                    _ => true,
                };
                is_written.then_some(Self::PartialGradSums { upstream, subgroups, finishes })
            }
            _ => None,
        }
    }

    /// Whether it sums a single rank and goes on to what merges ranks.
    pub(in crate::shaders) fn finishes(self) -> bool {
        matches!(
            self,
            Self::PartialStats { finishes: Some(_), .. }
                | Self::PartialGradSums { finishes: Some(_), .. }
        )
    }

    /// Whether it is the only kernel of its pass.
    pub(in crate::shaders) fn is_fused(self) -> bool {
        matches!(
            self,
            Self::PartialStats { finishes: Some(Finish::Output { .. }), .. }
                | Self::PartialGradSums { finishes: Some(FinishGrad::Input), .. }
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
