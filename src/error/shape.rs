//! Dimensions that no activation can have.

/// Dimensions that no activation can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Fewer than two dimensions.
    #[error("dims {dims:?} have {} dimension(s), expected at least 2: (N, C, spatial…)", dims.len())]
    Rank {
        /// The dimensions found.
        dims: Vec<usize>,
    },
    /// C = 0.
    #[error("dims {dims:?} have 0 channels at axis 1, expected at least 1")]
    NoChannels {
        /// The dimensions found.
        dims: Vec<usize>,
    },
    /// More elements than `u64` counts.
    #[error("dims {dims:?} have more elements than 64 bits count")]
    TooLarge {
        /// The dimensions found.
        dims: Vec<usize>,
    },
}
