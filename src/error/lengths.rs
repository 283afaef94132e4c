//! Lengths of padded samples that do not fit.

use super::argument::indexed;

/// Lengths of padded samples that do not fit the call or its x.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LengthsError {
    /// Lists of lengths for another number of ranks than the call has.
    #[error("lengths holds {found} list(s), expected {expected}: one per rank")]
    Lists {
        /// Lists found.
        found: usize,
        /// Ranks of the call.
        expected: usize,
    },
    /// A list of another number of lengths than x has samples.
    #[error(
        "{} holds {found} length(s), expected {expected}: one per sample of {}",
        indexed("lengths", *rank),
        indexed("x", *rank)
    )]
    Count {
        /// Rank, the position in the list; `None` if there is one rank.
        rank: Option<usize>,
        /// Lengths found.
        found: usize,
        /// Samples of x.
        expected: usize,
    },
    /// A length beyond the first spatial axis of x.
    #[error(
        "{}[{sample}] is {found}, expected at most {allowed}, the first spatial size of {}",
        indexed("lengths", *rank),
        indexed("x", *rank)
    )]
    TooLong {
        /// Rank, the position in the list; `None` if there is one rank.
        rank: Option<usize>,
        /// Which sample.
        sample: usize,
        /// The length found.
        found: u32,
        /// The size of the axis.
        allowed: usize,
    },
    /// Lengths of an x with more positions per sample than padded samples may have.
    #[error(
        "{} has {found} spatial positions per sample, expected at most {allowed} where lengths \
        are given",
        indexed("x", *rank)
    )]
    TooManyPositions {
        /// Rank, the position in the list; `None` if there is one rank.
        rank: Option<usize>,
        /// The product of the spatial sizes of x.
        found: usize,
        /// The largest product.
        allowed: u32,
    },
    /// Lengths of an x that has no spatial axis.
    #[error(
        "{} has dims {dims:?} and no spatial axis, which lengths are of; packed points (M, C) \
        need none",
        indexed("x", *rank)
    )]
    NoSpatialAxis {
        /// Rank, the position in the list; `None` if there is one rank.
        rank: Option<usize>,
        /// The dimensions of x.
        dims: Vec<usize>,
    },
}
