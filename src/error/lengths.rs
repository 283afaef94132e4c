//! Lengths of padded samples that do not fit.

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
        "lengths[{rank}] holds {found} length(s), expected {expected}: one per sample of x[{rank}]"
    )]
    Count {
        /// Rank, the position in the list.
        rank: usize,
        /// Lengths found.
        found: usize,
        /// Samples of x.
        expected: usize,
    },
    /// A length beyond the first spatial axis of x.
    #[error(
        "lengths[{rank}][{sample}] is {found}, expected at most {allowed}, the first spatial size \
        of x[{rank}]"
    )]
    TooLong {
        /// Rank, the position in the list.
        rank: usize,
        /// Which sample.
        sample: usize,
        /// The length found.
        found: u32,
        /// The size of the axis.
        allowed: usize,
    },
    /// Lengths of an x with more positions per sample than padded samples may have.
    #[error(
        "x[{rank}] has {found} spatial positions per sample, expected at most {allowed} where \
        lengths are given"
    )]
    TooManyPositions {
        /// Rank, the position in the list.
        rank: usize,
        /// The product of the spatial sizes of x.
        found: usize,
        /// The largest product.
        allowed: u32,
    },
    /// Lengths of an x that has no spatial axis.
    #[error(
        "x[{rank}] has dims {dims:?} and no spatial axis, which lengths are of; packed points (M, \
        C) need none"
    )]
    NoSpatialAxis {
        /// Rank, the position in the list.
        rank: usize,
        /// The dimensions of x.
        dims: Vec<usize>,
    },
}
