//! Passes with an epilogue: a layer and its batches, and what its outputs and gradients should be.

pub mod bounds;
pub mod problem;
mod tensors;
