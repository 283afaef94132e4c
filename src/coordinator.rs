//! What happens between the two halves of a pass: encode, gather, check peers, merge along the tree. No GPU type comes
//! here, and no thread.

mod exchange;
mod merge;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use exchange::{Call, Exchange};
pub(crate) use merge::Contribution;

use crate::collective::{Merged, NodePayload, Part};
use crate::stats::tree::{Node, join, merge_all};
use crate::stats::{ChannelStats, GradientSums};

/// What is exchanged per channel: something with a law of merging that two numbers and a count carry.
pub(crate) trait Mergeable: Copy {
    fn merge(self, other: Self) -> Self;
    /// Values that it was taken of, the same for every channel of a rank.
    fn count(&self) -> u64;
    fn numbers(&self) -> [f64; 2];
    fn from_numbers(count: u64, numbers: [f64; 2]) -> Self;
}

impl Mergeable for ChannelStats {
    fn merge(self, other: Self) -> Self {
        self.merge(other)
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn numbers(&self) -> [f64; 2] {
        [self.mean, self.m2]
    }

    fn from_numbers(count: u64, [mean, m2]: [f64; 2]) -> Self {
        Self { count, mean, m2 }
    }
}

impl Mergeable for GradientSums {
    fn merge(self, other: Self) -> Self {
        self.merge(other)
    }

    fn count(&self) -> u64 {
        0
    }

    fn numbers(&self) -> [f64; 2] {
        [self.sum_dy, self.sum_dy_xmu]
    }

    fn from_numbers(_: u64, [sum_dy, sum_dy_xmu]: [f64; 2]) -> Self {
        Self { sum_dy, sum_dy_xmu }
    }
}

/// Two values of a program, which add up.
impl Mergeable for [f64; 2] {
    fn merge(self, other: Self) -> Self {
        [self[0] + other[0], self[1] + other[1]]
    }

    fn count(&self) -> u64 {
        0
    }

    fn numbers(&self) -> [f64; 2] {
        *self
    }

    fn from_numbers(_: u64, numbers: [f64; 2]) -> Self {
        numbers
    }
}

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
    let values = node.value.iter().map(Mergeable::numbers).collect();
    NodePayload { level: node.level, index: node.index, count, values }
}

fn from_payload<T: Mergeable>(node: &NodePayload) -> Node<Vec<T>> {
    let value = node.values.iter().map(|&numbers| T::from_numbers(node.count, numbers)).collect();
    Node { level: node.level, index: node.index, value }
}

/// The law by which messages merge on their way through a transport.
fn merge_parts<T: Mergeable>(left: Part<'_>, right: Part<'_>) -> Vec<u8> {
    Merged::join(left, right, join_payloads::<T>).encode()
}

/// Joins the nodes of consecutive ranks, where they are so and of equally many channels.
fn join_payloads<T: Mergeable>(left: Vec<NodePayload>, right: Vec<NodePayload>) -> Result<Vec<NodePayload>, String> {
    let end = |node: &NodePayload| node.index.saturating_add(1).checked_shl(node.level);
    let start = |node: &NodePayload| node.index.checked_shl(node.level);
    if let (Some(last), Some(first)) = (left.last(), right.first())
        && end(last) != start(first)
    {
        let (found, expected) = (start(first).unwrap_or(u64::MAX), end(last).unwrap_or(u64::MAX));
        return Err(format!("its nodes begin at rank {found}, expected {expected}"));
    }
    let nodes = |payloads: &[NodePayload]| payloads.iter().map(from_payload).collect();
    Ok(join::<Vec<T>>(nodes(&left), nodes(&right), merge_channels).iter().map(to_payload).collect())
}
