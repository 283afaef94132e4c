//! One batch, cut into ranks in every way, and what layers make of it, bit by bit.

mod batch;
mod cuts;
mod findings;
pub mod resident;

pub use batch::{Cut, Whole};
pub use cuts::{FORMS, any_cut, hosts, uncut, whole};
pub use findings::{Findings, bits_of, findings, findings_of, found};
