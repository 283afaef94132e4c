//! All-reduce of gathered messages along the canonical tree over ranks, for transports that have no
//! all-reduce of their own.
//!
//! The content of messages is unknown here: the caller gives the reduce operation.

use std::sync::Arc;

/// One side of a merge: the merged message of some consecutive ranks.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The first of these ranks.
    pub rank: usize,
    /// Their merged message.
    pub bytes: &'a [u8],
}

/// A reduce operation: it merges two messages, the left ranks first. It takes any bytes. The result
/// reports invalid ones.
pub type ReduceOp = fn(Part<'_>, Part<'_>) -> Vec<u8>;

/// Merges the messages of all ranks. A node of the tree covers the ranks index·2^level … (index +
/// 1)·2^level − 1, and the left side of a merge is the largest node that leaves something on the
/// right.
pub(super) fn reduce_gathered(messages: &[Arc<[u8]>], op: ReduceOp) -> Arc<[u8]> {
    reduce_from(0, messages, op)
}

fn reduce_from(first: usize, messages: &[Arc<[u8]>], op: ReduceOp) -> Arc<[u8]> {
    match messages {
        [] => Arc::default(),
        [message] => message.clone(),
        _ => {
            let (left, right) = messages.split_at(messages.len().next_power_of_two() / 2);
            let middle = first + left.len();
            let left = reduce_from(first, left, op);
            let right = reduce_from(middle, right, op);
            op(Part { rank: first, bytes: &left }, Part { rank: middle, bytes: &right }).into()
        }
    }
}
