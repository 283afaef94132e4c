//! Double backward of a layer with an epilogue: its cotangents, its results, and what they should
//! be.

mod case;
mod expected;
mod on;

pub use case::{Case, Found};
pub use on::On;
