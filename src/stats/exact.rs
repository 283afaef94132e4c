//! Statistics from sums of integers. Their bits depend neither on the order of the values nor on
//! the split of a batch.
//!
//! ```text
//! range:    lo = min x, hi = max x over the group        p = f32(lo/2 + hi/2), e = ⌊log₂ h⌋ − 28
//! integers: q = round((x − p)·2⁻ᵉ)                       |q| ≤ 2²⁹ − 32, h = max(hi − p, p − lo)
//! sums:     Σq, Σq² over tiles, ranks and processes      exact, in any order
//! moments:  mean = p + 2ᵉ·Σq/N, m2 = 2²ᵉ·(N·Σq² − (Σq)²)/N, rounded once
//! ```
//!
//! `docs/numerics.md` has the bounds.

mod channels;
mod f32_sums;
mod range;
mod sums;
mod wide;

pub(crate) use channels::{
    ExactGradients, ExactStatistics, gradients, grids, moments, params, wide_params,
};
pub use f32_sums::ExactSums;
pub use range::ValueRange;
pub(crate) use range::{Grid, GridParams};
pub use sums::IntegerSums;
