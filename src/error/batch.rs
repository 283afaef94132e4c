//! Batches that no statistics can be taken from.

/// A batch from which no statistics can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// One value per channel in the whole group.
    #[error("expected more than 1 value per channel in the whole group when training, found 1")]
    OneValue,
}
