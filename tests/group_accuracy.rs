//! How exact y of a layer is where others lose it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "group_accuracy/accuracy.rs"]
mod accuracy;
mod common;
