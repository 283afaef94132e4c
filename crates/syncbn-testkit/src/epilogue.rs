//! Passes with an epilogue: a layer and its batches, with the expected outputs and gradients.

pub mod bounds;
pub mod double;
pub mod one_gpu;
pub mod padded;
pub mod problem;
mod run;
mod tensors;
