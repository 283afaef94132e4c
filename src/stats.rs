//! Statistics as plain values, in f64: the moments of a channel and their merge (Chan et al.),
//! local and global values of every channel, the running statistics, and the parameters that
//! devices normalize with.
//!
//! The module knows no devices, messages or tensors. Local statistics and gradient sums come from
//! the engine. [`Centering`] and [`GradCentering`] go back to it.

pub(crate) mod double;
pub(crate) mod exact;
mod global;
mod gradient;
mod local;
mod mergeable;
mod moments;
pub(crate) mod normalization;
mod per_rank;
mod report;
mod running;
pub(crate) mod tree;

pub(crate) use double::{DoubleCentering, DoublePair, DoubleSums, ParameterCotangents};
pub use exact::{ExactSums, IntegerSums, ValueRange};
pub(crate) use exact::{Grid, GridParams};
pub use global::{Global, GlobalGradientSums, GlobalStatistics};
pub use gradient::GradientSums;
pub(crate) use local::check_statistics;
pub use local::{Local, LocalGradientSums, LocalStatistics};
pub use mergeable::Mergeable;
pub(crate) use mergeable::{Component, Components};
pub use moments::Moments;
pub(crate) use normalization::{Centering, GradCentering, Normalization};
pub(crate) use per_rank::PerRank;
pub use report::{BackwardReport, ForwardReport, PhaseTimes};
pub use running::RunningStats;
