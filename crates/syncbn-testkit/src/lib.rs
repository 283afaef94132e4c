//! Code that the integration tests of `syncbn` and its tools share, compiled once: required
//! adapters, random batches, the tensors of golden cases, the f64 definition, comparisons with it,
//! and transports that a test controls.
//!
//! The unit tests of `syncbn` cannot use it, because it is built with another copy of the library
//! than theirs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod adapter;
pub mod backward;
pub mod batch;
pub mod compare;
pub mod cost;
pub mod epilogue;
pub mod events;
pub mod exit;
pub mod golden;
pub mod hard;
pub mod kernel;
pub mod oracle;
pub mod placement;
pub mod random;
pub mod reproducible;
pub mod sabotage;
pub mod shape_kinds;
pub mod shapes;
pub mod storage;
pub mod transport;

pub use adapter::{adapter, noop, own_device};
pub use batch::{Batch, Parameters, bits, normal, read, upload};
pub use compare::{
    STATISTICS_TOLERANCE, TOLERANCE_ULP, compare, compare_running, compare_statistics, ulp,
    worst_share,
};
pub use exit::kept;
pub use hard::{HardCase, large_means, small_variances};
pub use oracle::{definition, definition_with, widened};
pub use placement::Placement;
pub use random::Random;
pub use transport::{all_reduce_groups, groups_over, on_threads, process_groups};
