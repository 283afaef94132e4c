//! Fused passes: both halves of a pass over some channels before the next ones, where every rank of
//! the group is in this process's memory and nothing is exchanged.
//!
//! Owns the cut of channels into tasks, and the decision whether a fused pass pays. The results
//! have the same bits as those of the separate phases.
//!
//! ```text
//! for some channels, of which all ranks' values fit a cache:            a task
//!     for rank:  sums of its values                                     read from memory
//!     merge the ranks' sums;  coefficients of these channels
//!     for rank, from the last:  write its outputs                       x is read from the cache
//! ```
//!
//! A pass is memory-bound, and the second look at what it reads comes from the cache: forward moves
//! two tensors through memory (x, y) instead of three, backward three (grad_output, x, grad_input)
//! instead of five. Ranks and samples are written from the last to the first, because what was
//! summed last is sure to be in the cache.

mod backward;
mod cut;
mod exact;
mod forward;

pub(crate) use backward::backward;
pub(super) use cut::{CHANNELS_AT_ONCE, at_once};
pub(crate) use exact::{backward_exact, forward_exact};
pub(crate) use forward::forward;
