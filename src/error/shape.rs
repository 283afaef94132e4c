//! Dimensions that no activation can have.

/// Dimensions that no activation can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Fewer than two dimensions.
    #[error(
        "dims {dims:?} have {} dimension(s), expected at least 2: (N, C, spatial…)",
        dims.len()
    )]
    Dimensions {
        /// The dimensions found.
        dims: Vec<usize>,
    },
    /// C = 0.
    #[error("dims {dims:?} have 0 channels at axis {axis}, expected at least 1")]
    NoChannels {
        /// The dimensions found.
        dims: Vec<usize>,
        /// The axis of the channels: 1, or the last one where channels are last.
        axis: usize,
    },
    /// More elements than `u64` counts.
    #[error("dims {dims:?} have more elements than 64 bits count")]
    TooLarge {
        /// The dimensions found.
        dims: Vec<usize>,
    },
}
