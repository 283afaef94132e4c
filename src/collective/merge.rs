//! Merging messages along the canonical tree over ranks, for transports that do not do it on the
//! way.
//!
//! Knows nothing of what a message holds: whoever asks for the merge gives the law.

use std::sync::Arc;

/// One side of a merge: what some consecutive ranks have said, merged already.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The first of these ranks.
    pub rank: usize,
    /// What they said.
    pub bytes: &'a [u8],
}

/// The law of a merge: the left ranks come first. It takes any bytes; what is wrong with them is
/// said in the result.
pub type Merge = fn(Part<'_>, Part<'_>) -> Vec<u8>;

/// Merges what all ranks have said. A node of the tree covers the ranks index·2^level …
/// (index + 1)·2^level − 1, and the left side of a merge is the largest node that leaves something
/// on the right.
pub(super) fn merge_gathered(messages: &[Arc<[u8]>], merge: Merge) -> Arc<[u8]> {
    merge_from(0, messages, merge)
}

fn merge_from(first: usize, messages: &[Arc<[u8]>], merge: Merge) -> Arc<[u8]> {
    match messages {
        [] => Arc::default(),
        [message] => message.clone(),
        _ => {
            let (left, right) = messages.split_at(messages.len().next_power_of_two() / 2);
            let middle = first + left.len();
            let (left, right) = (merge_from(first, left, merge), merge_from(middle, right, merge));
            merge(Part { rank: first, bytes: &left }, Part { rank: middle, bytes: &right }).into()
        }
    }
}
