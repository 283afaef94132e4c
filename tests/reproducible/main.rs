//! Sums that do not depend on order: one batch, cut into ranks in every way, has the same bits.
//!
//! `batch` has the batches and what a layer makes of them, `splits` the ways to cut them,
//! `definition` what their sums should be, `groups` ranks in threads, and batches in rounds, `refused` what cannot be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod batch;
mod definition;
mod groups;
mod refused;
mod splits;
