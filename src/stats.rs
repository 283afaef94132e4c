//! Host mathematics of statistics in f64: one channel's moments, their merge along the tree, what is broadcast, the running update.
//!
//! Knows nothing of devices, messages or shapes. Local statistics and gradient sums come in from the engine,
//! [`Centering`] and [`GradCentering`] go back to it.

mod channel;
mod global;
mod gradient;
mod normalization;
mod running;
pub mod tree;

pub use channel::ChannelStats;
pub use global::GlobalStats;
pub use gradient::GradientSums;
pub use normalization::{Centering, GradCentering, Normalization};
pub use running::RunningStats;
