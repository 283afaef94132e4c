//! Host mathematics of statistics in f64: one channel's moments, their merge along the tree, what is broadcast, the running update.
//!
//! Knows nothing of devices, messages or shapes. Local statistics come in from the engine, [`GlobalStats`] go back to it.

mod channel;
mod global;
mod running;
pub mod tree;

pub use channel::ChannelStats;
pub use global::{Centering, GlobalStats};
pub use running::RunningStats;
