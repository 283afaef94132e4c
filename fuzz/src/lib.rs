//! The properties of reading any bytes: no panic, no more memory than the bytes account for, and a
//! decoded value encodes to the same bytes.
//!
//! One function for each fuzz target; it panics where its property does not hold. `seeds` makes the
//! bytes that a fuzzer starts from.
#![allow(clippy::expect_used, clippy::panic, reason = "a property that does not hold panics")]

mod exchange;
mod memory;
#[cfg(feature = "layers")]
mod requests;
pub mod seeds;
mod settings;
mod state;
mod wire;

pub use exchange::exchange;
#[cfg(feature = "layers")]
pub use requests::{lengths, requests};
pub use settings::{config, statistics};
pub use state::{state_file, state_message};
pub use wire::{frame, list, merged, reduce};

/// A target: its name, its property, and the seeds.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Every target.
pub const TARGETS: &[Target] = &[
    ("frame", frame, seeds::frames),
    ("list", list, seeds::lists),
    ("merged", merged, seeds::merged),
    ("reduce", reduce, seeds::pairs),
    ("exchange", exchange, seeds::edits),
    ("state_message", state_message, seeds::state_messages),
    ("state_file", state_file, seeds::state_files),
    ("config", config, seeds::configs),
    ("statistics", statistics, seeds::statistics),
    #[cfg(feature = "layers")]
    ("lengths", lengths, seeds::lengths),
    #[cfg(feature = "layers")]
    ("requests", requests, seeds::requests),
];
