//! Sums that do not depend on order: one batch, cut into ranks in every way, has the same bits.
//!
//! `syncbn_testkit::reproducible` has the batches, the ways to cut them and what layers make of
//! them, `splits` ranks of one caller on the host, `definition` what their sums should be, `fused`
//! channels taken one by one, `groups` ranks in threads, and batches in rounds, `gpus` devices of
//! other kinds than the host, `one_gpu` layers that merge on their device, `doubles` their
//! arithmetic, `refused` what cannot be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod definition;
#[cfg(feature = "gpu")]
mod doubles;
mod fused;
#[cfg(feature = "gpu")]
mod gpus;
mod groups;
#[cfg(feature = "gpu")]
mod one_gpu;
mod refused;
mod splits;
