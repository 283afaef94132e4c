//! The kernels under a hostile compiler: the tests of what fast math may take from them, within the
//! bounds of the ordinary ones, on a software driver that compiles their sources rewritten.
//!
//! `rewrite` is the compiler, `planted` shows what it does and what stops it, `kernels` that it
//! takes every kernel, `barriers` that it breaks the kernels where it sees through their barriers.
//! `honest` says which of these tests need a driver that itself changes nothing.
//! `common` opens devices whose kernels pass through it, and `again` says how to open them again.
//! `accuracy`, `resident`, `not_finite`, `backward` and `double` are the ordinary tests;
//! `epilogues`, `quads`, `reproducible` and `signs` are what the ordinary ones go through at length
//! or compare by bits.
//!
//! The adapter must have `SHADER_F64`, in which the rewritten kernels compute exact products;
//! without it these tests fail. lavapipe has it, many GPUs have not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../it/group_accuracy/accuracy.rs"]
mod accuracy;
mod again;
mod backward;
mod barriers;
mod common;
#[path = "../it/storage/devices.rs"]
mod devices;
mod double;
mod epilogues;
mod honest;
mod kernels;
#[path = "../it/epilogue/not_finite.rs"]
mod not_finite;
mod padded;
mod planted;
mod planted_runs;
mod quads;
mod reproducible;
mod resident;
mod rewrite;
mod signs;

use common::epilogue::{bounds, problem};
use common::storage as stored;
