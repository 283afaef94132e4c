//! The kernels under a hostile compiler: the tests of what fast math may take from them, within the
//! bounds of the ordinary ones, on a software driver that compiles their texts rewritten.
//!
//! `rewrite` is the compiler, `planted` shows what it does and what stops it, `kernels` that it
//! takes every kernel, `barriers` that it breaks the kernels where it sees through their barriers.
//! `common` opens devices whose kernels pass through it, and `again` says how to open them again.
//! `accuracy`, `resident`, `not_finite` and `backward` are the ordinary tests; `epilogues`, `quads`
//! and `sides` are what the ordinary ones go through at length or compare by bits.
//!
//! The adapter must have `SHADER_F64`, in which the rewritten kernels compute exact products;
//! without it these tests fail. lavapipe has it, many GPUs have not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "group_accuracy/accuracy.rs"]
mod accuracy;
#[path = "hostile/again.rs"]
mod again;
#[path = "hostile/backward.rs"]
mod backward;
#[path = "hostile/barriers.rs"]
mod barriers;
#[allow(dead_code)]
#[path = "epilogue/bounds.rs"]
mod bounds;
#[path = "hostile/common.rs"]
mod common;
#[path = "storage/devices.rs"]
mod devices;
#[path = "hostile/epilogues.rs"]
mod epilogues;
#[path = "hostile/kernels.rs"]
mod kernels;
#[path = "epilogue/not_finite.rs"]
mod not_finite;
#[path = "common/mod.rs"]
mod ordinary;
#[path = "hostile/planted.rs"]
mod planted;
#[path = "hostile/planted_runs.rs"]
mod planted_runs;
#[allow(dead_code)]
#[path = "epilogue/problem.rs"]
mod problem;
#[path = "hostile/quads.rs"]
mod quads;
#[path = "hostile/resident.rs"]
mod resident;
#[path = "hostile/rewrite/mod.rs"]
mod rewrite;
#[path = "hostile/sides.rs"]
mod sides;
#[allow(dead_code)]
#[path = "storage/stored.rs"]
mod stored;
