//! Calls of one rank that overlap in time: several layers of one process group are awaited at once,
//! in the same order on every rank, while the devices of the ranks finish in another.
//!
//! `order` lets such calls succeed, over every kind of device and transport. `exchanges` does so
//! with exchanges taken alone and with joint calls of every pass. `held` lets the first of two
//! fail, be dropped, or never be polled again.

mod exchanges;
mod held;
mod order;
