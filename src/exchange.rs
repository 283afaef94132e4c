//! The exchange between the two halves of a pass: encode, gather, check peers, merge along the
//! tree. It uses no GPU type and no thread.

mod call;
mod exact;
mod merge;
mod summary;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use call::{Call, Exchange};
pub(crate) use merge::Contribution;

use std::borrow::Cow;

use crate::collective::{Merged, NodePayload, Part};
use crate::stats::Mergeable;
use crate::stats::tree::{join, merge_all};
use summary::Summary;

/// Merges all ranks of a group that this process holds, `local[rank][channel]`, each with all
/// channels.
pub(crate) fn merge_ranks<T: Mergeable>(local: &[Vec<T>]) -> Vec<T> {
    let merge = |left: &mut Cow<'_, [T]>, right: &Cow<'_, [T]>| {
        debug_assert_eq!(left.len(), right.len(), "channels");
        let channels = left.to_mut().iter_mut().zip(right.iter());
        channels.for_each(|(left, right)| *left = left.merge(*right));
    };
    let ranks = local.iter().map(|rank| Cow::Borrowed(rank.as_slice()));
    merge_all(ranks, merge).map(Cow::into_owned).unwrap_or_default()
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
    // Values merge in place: those of more channels would stay as they are.
    let mut channels = left.iter().chain(&right).map(|node| node.values.len());
    if let Some(expected) = channels.next()
        && let Some(found) = channels.find(|found| *found != expected)
    {
        return Err(format!("a node holds values of {found} channels, expected {expected}"));
    }
    let nodes = |payloads: Vec<NodePayload>| {
        payloads.into_iter().map(Summary::<T>::of_payload).collect::<Result<Vec<_>, String>>()
    };
    let joined = join(nodes(left)?, nodes(right)?, Summary::merge);
    Ok(joined.into_iter().map(Summary::into_payload).collect())
}
