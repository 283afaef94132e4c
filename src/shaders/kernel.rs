//! The kernels, and what of their sources depends on the tensors and the layer that they work on.

mod merging;
mod upstream;

pub use merging::{Finish, FinishGrad, RankSums, RunningForm};
pub use upstream::{Active, MaskOrder, Upstream};

use super::files;
use super::params::{
    AccumulateParams, CombineParams, CotangentParams, FinalizeDoubleParams, FinalizeGradParams,
    FinalizeParams, GradIntegersParams, IntegersParams, ParamsLayout, TileParams,
};
use super::storage::Storage;
use crate::dtype::DType;

/// What an invocation loads and stores at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Elements {
    /// Single values.
    #[default]
    Single,
    /// Four values of one channel that lie next to each other.
    Quads,
    /// Four values of neighbouring channels that lie next to each other.
    FourChannels,
    /// Four values that lie next to each other, of which those of one channel count: the quads that
    /// cover a plane. By kernels that sum.
    Covering,
    /// Four values that lie next to each other, by kernels that write in the order of addresses.
    Flat {
        /// They may be of two channels that meet among them.
        straddles: bool,
    },
}

/// What the kernels of forward's second half depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Normalize {
    /// Storage of x and of the residual.
    pub x: Storage,
    /// Type of y.
    pub y: DType,
    /// What an invocation loads at once.
    pub elements: Elements,
    /// A residual is added before the activation.
    pub residual: bool,
    /// There is an activation.
    pub activation: bool,
    /// The activation is a curve, and not two slopes.
    pub curved: bool,
    /// The mask of the activation that is kept.
    pub mask: Option<MaskOrder>,
    /// y and x are one buffer, which is bound once, because a kernel may not bind a range
    /// twice for writing.
    pub in_place: bool,
}

/// What the kernels of backward's second half depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GradInput {
    /// What is read.
    pub upstream: Upstream,
    /// The statistics depend on x; without, they are constants for the gradient.
    pub batch_statistics: bool,
    /// The gradient of the residual is wanted.
    pub grad_residual: bool,
    /// The gradient of x and grad_output are one buffer.
    pub in_place: bool,
}

/// Which gradient a kernel of double backward writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DoubleGradient {
    /// With respect to x.
    #[default]
    Input,
    /// With respect to grad_output.
    GradOutput,
}

/// A compute kernel, for the tensors and the layer at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Partial statistics of every tile.
    PartialStats {
        /// Storage of x.
        x: Storage,
        /// What an invocation loads at once.
        elements: Elements,
        /// Four lanes of a tile merge within a subgroup; not for elements of four channels.
        subgroups: bool,
        /// Of a single rank whose channels have one tile each: what it goes on to.
        finishes: Option<Finish>,
    },
    /// Local statistics of the rank from those of its tiles.
    CombineStats,
    /// The normalized output.
    Normalize(Normalize),
    /// Partial gradient sums of every tile.
    PartialGradSums {
        /// What is read.
        upstream: Upstream,
        /// Four lanes of a tile merge within a subgroup; not for elements of four channels.
        subgroups: bool,
        /// Of a single rank whose channels have one tile each: what it goes on to. Nothing where v
        /// is formed with a residual, which would be a buffer too many.
        finishes: Option<FinishGrad>,
    },
    /// Local gradient sums of the rank from those of its tiles.
    CombineGradSums,
    /// Ranges of every tile, or sums of integers of x.
    PartialIntegers(Storage, Elements),
    /// Ranges of the gradients of every tile, or sums of their integers and those of x.
    PartialGradIntegers(Upstream),
    /// Those of the rank from those of its tiles.
    CombineIntegers,
    /// The gradient of the input, stored as x, and where it is wanted that of the residual.
    GradInput(GradInput),
    /// Partial sums of double backward of every tile.
    PartialDoubleSums(Upstream),
    /// A gradient of double backward, stored as x.
    DoubleInput {
        /// What is read, all of it stored and laid out as x.
        upstream: Upstream,
        /// Which gradient.
        of: DoubleGradient,
    },
    /// The statistics of ranks on one device merged, and the running statistics.
    FinalizeStats {
        /// How these lie.
        running: RunningForm,
        /// What is read of a single rank.
        sums: RankSums,
    },
    /// What normalizes with the running statistics.
    CenterRunning(RunningForm),
    /// The gradient sums of ranks on one device merged, and the gradients of the parameters.
    FinalizeGrad(RankSums),
    /// Grids of x from the ranges of ranks on one device.
    FindGrids,
    /// Those of channels with far outliers, from sums of integers.
    FindWide,
    /// What [`FinalizeStats`](Self::FinalizeStats) makes, of sums of integers.
    FinalizeIntegers(RunningForm),
    /// Grids of the gradients, beside those of x.
    FindGradGrids,
    /// What [`FinalizeGrad`](Self::FinalizeGrad) makes, of sums of integers.
    FinalizeGradIntegers,
    /// The cotangents of a rank's gradients of the parameters beside those of the other ranks.
    GatherCotangents,
    /// The sums of double backward of ranks on one device merged, and the gradient with respect to
    /// the weight.
    FinalizeDouble,
    /// A vector added to another.
    Accumulate,
}

impl Kernel {
    /// Name of the kernel: that of its file.
    pub fn name(self) -> &'static str {
        self.file().0
    }

    /// Name and contents of the kernel's file.
    pub(super) fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::PartialStats { .. } => ("partial_stats", files::PARTIAL_STATS),
            Self::CombineStats => ("combine_stats", files::COMBINE_STATS),
            Self::Normalize(_) if self.owns_words() => ("normalize_words", files::NORMALIZE_WORDS),
            Self::Normalize(_) if self.is_flat() => ("normalize_flat", files::NORMALIZE_FLAT),
            Self::Normalize(_) => ("normalize", files::NORMALIZE),
            Self::PartialGradSums { .. } => ("partial_grad_sums", files::PARTIAL_GRAD_SUMS),
            Self::CombineGradSums => ("combine_grad_sums", files::COMBINE_GRAD_SUMS),
            Self::PartialIntegers(..) => ("partial_integers", files::PARTIAL_INTEGERS),
            Self::PartialGradIntegers(_) => ("partial_grad_integers", files::PARTIAL_GRAD_INTEGERS),
            Self::CombineIntegers => ("combine_integers", files::COMBINE_INTEGERS),
            Self::GradInput(_) if self.owns_words() => {
                ("grad_input_words", files::GRAD_INPUT_WORDS)
            }
            Self::GradInput(_) if self.is_flat() => ("grad_input_flat", files::GRAD_INPUT_FLAT),
            Self::GradInput(_) => ("grad_input", files::GRAD_INPUT),
            Self::PartialDoubleSums(_) => ("partial_double_sums", files::PARTIAL_DOUBLE_SUMS),
            Self::DoubleInput { .. } if self.owns_words() => {
                ("double_input_words", files::DOUBLE_INPUT_WORDS)
            }
            Self::DoubleInput { .. } => ("double_input", files::DOUBLE_INPUT),
            Self::FinalizeStats { .. } => ("finalize_stats", files::FINALIZE_STATS),
            Self::CenterRunning(_) => ("center_running", files::CENTER_RUNNING),
            Self::FinalizeGrad(_) => ("finalize_grad", files::FINALIZE_GRAD),
            Self::FindGrids => ("find_grids", files::FIND_GRIDS),
            Self::FindWide => ("find_wide", files::FIND_WIDE),
            Self::FinalizeIntegers(_) => ("finalize_integers", files::FINALIZE_INTEGERS),
            Self::FindGradGrids => ("find_grad_grids", files::FIND_GRAD_GRIDS),
            Self::FinalizeGradIntegers => ("finalize_grad_integers", files::FINALIZE_GRAD_INTEGERS),
            Self::GatherCotangents => ("gather_cotangents", files::GATHER_COTANGENTS),
            Self::FinalizeDouble => ("finalize_double", files::FINALIZE_DOUBLE),
            Self::Accumulate => ("accumulate", files::ACCUMULATE),
        }
    }

    /// Layout of the parameter struct at binding 0.
    pub fn params_layout(self) -> ParamsLayout {
        match self {
            Self::CombineStats | Self::CombineGradSums | Self::CombineIntegers => {
                CombineParams::LAYOUT
            }
            Self::FinalizeStats { .. } | Self::CenterRunning(_) => FinalizeParams::LAYOUT,
            Self::FinalizeGrad(_) => FinalizeGradParams::LAYOUT,
            Self::FindGrids | Self::FindWide | Self::FinalizeIntegers(_) => IntegersParams::LAYOUT,
            Self::FindGradGrids | Self::FinalizeGradIntegers => GradIntegersParams::LAYOUT,
            Self::GatherCotangents => CotangentParams::LAYOUT,
            Self::FinalizeDouble => FinalizeDoubleParams::LAYOUT,
            Self::Accumulate => AccumulateParams::LAYOUT,
            _ => TileParams::LAYOUT,
        }
    }

    /// What an invocation loads at once.
    pub fn elements(self) -> Elements {
        match self {
            Self::PartialStats { elements, .. } | Self::PartialIntegers(_, elements) => elements,
            Self::Normalize(normalize) => normalize.elements,
            _ => self.upstream().map_or(Elements::Single, |upstream| upstream.elements),
        }
    }

    /// What a kernel of backward reads.
    pub(super) fn upstream(self) -> Option<Upstream> {
        match self {
            Self::PartialGradSums { upstream, .. }
            | Self::PartialGradIntegers(upstream)
            | Self::PartialDoubleSums(upstream)
            | Self::DoubleInput { upstream, .. }
            | Self::GradInput(GradInput { upstream, .. }) => Some(upstream),
            _ => None,
        }
    }

    /// Whether it keeps a mask of the activation.
    pub(crate) fn keeps_mask(self) -> bool {
        matches!(self, Self::Normalize(Normalize { mask: Some(_), .. }))
    }

    /// How the mask lies that is kept or read.
    pub(super) fn mask_order(self) -> Option<MaskOrder> {
        match self {
            Self::Normalize(normalize) => normalize.mask,
            _ => self.upstream().and_then(|upstream| upstream.active.mask_order()),
        }
    }

    /// Storage of x and of the residual.
    pub(super) fn x(self) -> Option<Storage> {
        match self {
            Self::PartialStats { x, .. } | Self::PartialIntegers(x, _) => Some(x),
            Self::Normalize(normalize) => Some(normalize.x),
            _ => self.upstream().map(|upstream| upstream.x),
        }
    }

    /// Type of an activation that is written.
    pub(super) fn output(self) -> Option<DType> {
        match self {
            Self::Normalize(normalize) => Some(normalize.y),
            Self::PartialStats { finishes: Some(Finish::Output { y, .. }), .. } => Some(y),
            Self::PartialGradSums { upstream, finishes: Some(FinishGrad::Input), .. } => {
                Some(upstream.x.dtype())
            }
            Self::GradInput(GradInput { upstream, .. }) | Self::DoubleInput { upstream, .. } => {
                Some(upstream.x.dtype())
            }
            _ => None,
        }
    }

    /// Whether four lanes of a tile merge within a subgroup.
    pub(super) fn subgroups(self) -> bool {
        match self {
            Self::PartialStats { subgroups, .. } | Self::PartialGradSums { subgroups, .. } => {
                subgroups && self.elements() != Elements::FourChannels
            }
            _ => false,
        }
    }

    /// Names of the input and the output that are one buffer, where the pass is in place.
    pub(super) fn in_place(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Normalize(Normalize { in_place: true, .. }) => Some(["x", "y"]),
            Self::GradInput(GradInput { in_place: true, .. }) => {
                Some(["grad_output", "grad_input"])
            }
            _ => None,
        }
    }

    /// Whether it goes through memory in the order of addresses, quad by quad.
    pub fn is_flat(self) -> bool {
        matches!(self.elements(), Elements::Flat { .. })
    }

    /// Whether an invocation owns words of a 16-bit output, of which one may hold two channels.
    pub(super) fn owns_words(self) -> bool {
        self.elements() == Elements::Single
            && self.output().is_some_and(|output| output != DType::F32)
    }
}
