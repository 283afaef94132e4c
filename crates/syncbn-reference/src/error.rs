//! Errors of the definition.

/// Inputs that the definition cannot be applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The group has no rank.
    #[error("the group has 0 ranks, at least 1 is needed: pass one batch per rank")]
    NoRanks,
    /// Fewer than two dimensions.
    #[error(
        "rank {rank} has {found} dimensions, at least 2 are needed (batch, channels, spatial...)"
    )]
    Dimensions {
        /// Whose dimensions.
        rank: usize,
        /// Number of dimensions.
        found: usize,
    },
    /// Ranks must have the same number of channels.
    #[error(
        "rank {rank} has {found} channels, rank 0 has {expected}: all ranks need the same number"
    )]
    Channels {
        /// The rank that differs from rank 0.
        rank: usize,
        /// Channels of that rank.
        found: usize,
        /// Channels of rank 0.
        expected: usize,
    },
    /// A slice is not as long as it has to be.
    #[error("{what} has {found} values, {expected} are needed")]
    Length {
        /// The argument.
        what: String,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
    },
    /// An upstream gradient must have the shape of its input.
    #[error(
        "rank {rank}: grad_output has the dimensions {grad_output:?}, the input has {input:?}: \
        they must be the same"
    )]
    Shapes {
        /// Whose tensors.
        rank: usize,
        /// Dimensions of the input.
        input: Vec<usize>,
        /// Dimensions of the upstream gradient.
        grad_output: Vec<usize>,
    },
    /// One value says nothing about a variance.
    #[error(
        "the group has 1 value per channel, training needs at least 2: use a larger batch, or \
        given statistics"
    )]
    SingleValue,
}
