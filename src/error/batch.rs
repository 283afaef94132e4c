//! Batches that no statistics can be taken from.

/// A batch from which no statistics can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// One value per channel over all ranks, in training.
    #[error("x has 1 value per channel over all ranks, expected more than 1 when training")]
    OneValue,
}
