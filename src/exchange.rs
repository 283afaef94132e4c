//! The exchange between the two halves of a pass: encode, gather, check peers, merge along the
//! tree. It uses no GPU type and no thread.

mod call;
mod exact;
mod merge;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use call::{Call, Exchange};
pub(crate) use merge::Contribution;

use crate::collective::{Merged, NodePayload, Part, Values};
use crate::stats::tree::{Node, join, merge_all};
use crate::stats::{Components, Mergeable};

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
    let components = node.value.iter().map(Mergeable::components);
    let values = if T::ARE_INTEGERS {
        let integers = components.filter_map(|of| match of {
            Components::Integers(pair) => Some(pair),
            Components::Floats(_) => None,
        });
        Values::Integers(integers.collect())
    } else {
        let floats = components.filter_map(|of| match of {
            Components::Floats(pair) => Some(pair),
            Components::Integers(_) => None,
        });
        Values::Floats(floats.collect())
    };
    NodePayload { level: node.level, index: node.index, count, values }
}

/// A node, or an error if its values are of another kind.
fn from_payload<T: Mergeable>(node: &NodePayload) -> Result<Node<Vec<T>>, String> {
    let value = |components| T::from_components(node.count, components);
    let values: Option<Vec<T>> = match &node.values {
        Values::Floats(pairs) => pairs.iter().map(|&of| value(Components::Floats(of))).collect(),
        Values::Integers(pairs) => {
            pairs.iter().map(|&of| value(Components::Integers(of))).collect()
        }
    };
    let refuse = || "a node holds values of another kind than this exchange has".to_owned();
    Ok(Node { level: node.level, index: node.index, value: values.ok_or_else(refuse)? })
}

/// The reduce operation of an all-reduce of messages.
pub(crate) fn merge_parts<T: Mergeable>(left: Part<'_>, right: Part<'_>) -> Vec<u8> {
    Merged::join(left, right, join_payloads::<T>).encode()
}

/// Joins the nodes of consecutive ranks. An error if the ranks are not consecutive or the numbers
/// of channels differ.
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
    let nodes = |payloads: &[NodePayload]| {
        payloads.iter().map(from_payload).collect::<Result<Vec<Node<Vec<T>>>, String>>()
    };
    Ok(join(nodes(&left)?, nodes(&right)?, merge_channels).iter().map(to_payload).collect())
}
