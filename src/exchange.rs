//! What happens between the two halves of a pass: encode, gather, check peers, merge along the
//! tree. No GPU type comes here, and no thread.

mod call;
mod merge;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use call::{Call, Exchange};
pub(crate) use merge::Contribution;

use crate::collective::{Merged, NodePayload, Part};
use crate::stats::Mergeable;
use crate::stats::tree::{Node, join, merge_all};

/// Merges all ranks of a group that this process holds, `local[rank][channel]`.
pub(crate) fn merge_ranks<T: Mergeable>(local: &[Vec<T>]) -> Vec<T> {
    merge_all(local, merge_channels).unwrap_or_default()
}

/// Merges two ranks or nodes, channel by channel.
#[allow(clippy::ptr_arg, reason = "the tree merges values of one type, which is owned")]
fn merge_channels<T: Mergeable>(left: &Vec<T>, right: &Vec<T>) -> Vec<T> {
    left.iter().zip(right).map(|(left, right)| left.merge(*right)).collect()
}

fn to_payload<T: Mergeable>(node: &Node<Vec<T>>) -> NodePayload {
    let count = node.value.first().map_or(0, Mergeable::count);
    let values = node.value.iter().map(Mergeable::components).collect();
    NodePayload { level: node.level, index: node.index, count, values }
}

fn from_payload<T: Mergeable>(node: &NodePayload) -> Node<Vec<T>> {
    let value =
        node.values.iter().map(|&components| T::from_components(node.count, components)).collect();
    Node { level: node.level, index: node.index, value }
}

/// The reduce operation of an all-reduce of messages.
pub(crate) fn merge_parts<T: Mergeable>(left: Part<'_>, right: Part<'_>) -> Vec<u8> {
    Merged::join(left, right, join_payloads::<T>).encode()
}

/// Joins the nodes of consecutive ranks, where they are so and of equally many channels.
fn join_payloads<T: Mergeable>(
    left: Vec<NodePayload>,
    right: Vec<NodePayload>,
) -> Result<Vec<NodePayload>, String> {
    let end = |node: &NodePayload| node.index.saturating_add(1).checked_shl(node.level);
    let start = |node: &NodePayload| node.index.checked_shl(node.level);
    if let (Some(last), Some(first)) = (left.last(), right.first())
        && end(last) != start(first)
    {
        let found = start(first).unwrap_or(u64::MAX);
        let expected = end(last).unwrap_or(u64::MAX);
        return Err(format!("its nodes begin at rank {found}, expected {expected}"));
    }
    let nodes = |payloads: &[NodePayload]| payloads.iter().map(from_payload).collect();
    Ok(join::<Vec<T>>(nodes(&left), nodes(&right), merge_channels).iter().map(to_payload).collect())
}
