//! Merging what all processes have: one message for one call or for several.

use std::sync::atomic::Ordering;

use super::exchange::{Call, Ranks};
use super::{Mergeable, from_payload, merge_channels, merge_parts, merge_ranks, to_payload};
use crate::collective::{Again, Header, ListError, NodePayload, Operation, Payload, UNTOLD};
use crate::error::ExchangeError;
use crate::stats::tree::{merge_nodes, merge_run};

/// What this process has to give to a call's exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contribution<'a, T> {
    pub call: &'a Call,
    /// What its ranks have, `local[rank][channel]`.
    pub local: &'a [Vec<T>],
    /// Checksum of the state, where it is to be told.
    pub state: Option<u64>,
}

impl Call {
    /// Merges what this process has with what all others have, for several calls of one process group in one message; the
    /// same bits on every rank, `[call][channel]`, as for each call by itself.
    ///
    /// `None` where only some ranks tell the state of a call. All ranks see that, and merge once more with the states of all
    /// their calls, in the same turn. An error comes with the number of its call, if it is one's. The turns of the calls do
    /// not pass.
    pub async fn merge<T: Mergeable>(parts: &[Contribution<'_, T>]) -> Result<Option<Vec<Vec<T>>>, ListError> {
        let Some(first) = parts.first() else { return Ok(Some(Vec::new())) };
        if first.call.exchange.group().world_size() == 1 {
            return Ok(Some(parts.iter().map(|part| merge_ranks(part.local)).collect()));
        }
        let operations: Vec<&Operation> = parts.iter().map(|part| &part.call.operation).collect();
        let say = || parts.iter().map(Contribution::say).collect();
        let answers = Operation::exchange(&operations, say, Some(merge_parts::<T>)).await?;
        let mut payloads = Vec::with_capacity(parts.len());
        let mut untold = false;
        for (index, (part, answer)) in parts.iter().zip(answers).enumerate() {
            let may = Again { states: !part.call.asked.load(Ordering::Relaxed) };
            let again = part.call.operation.judge(&answer, may).map_err(|error| (Some(index), error))?;
            untold |= again.states;
            payloads.push(answer.payloads);
        }
        if untold {
            parts.iter().for_each(|part| part.call.asked.store(true, Ordering::Relaxed));
            return Ok(None);
        }
        let merged = parts.iter().zip(payloads).enumerate().map(|(index, (part, payloads))| {
            let exchange = &part.call.exchange;
            if part.state.is_some() {
                exchange.has_announced();
            }
            let merged = merge_payloads(&part.call.operation, payloads, exchange.channels, exchange.ranks.total);
            merged.map_err(|error| (Some(index), error))
        });
        merged.collect::<Result<_, _>>().map(Some)
    }

    /// [`merge`](Self::merge) of calls that have no state to tell, as of backward.
    pub async fn merge_stateless<T: Mergeable>(parts: &[Contribution<'_, T>]) -> Result<Vec<Vec<T>>, ListError> {
        // A rank that tells one all the same is refused at the second time.
        loop {
            if let Some(merged) = Self::merge(parts).await? {
                return Ok(merged);
            }
        }
    }
}

impl<T: Mergeable> Contribution<'_, T> {
    fn say(&self) -> (Header, Payload) {
        let header = Header { state: self.state.unwrap_or(UNTOLD), ..self.call.operation.header().clone() };
        let Ranks { first, .. } = self.call.exchange.ranks;
        let nodes = merge_run(first, self.local, merge_channels);
        (header, Payload::Nodes(nodes.iter().map(to_payload).collect()))
    }
}

/// Merges the nodes of all processes, one payload of each, or one of all that have merged on their way.
fn merge_payloads<T: Mergeable>(
    operation: &Operation,
    payloads: Vec<Payload>,
    channels: u64,
    total_ranks: u64,
) -> Result<Vec<T>, ExchangeError> {
    let last = operation.group().world_size() - 1;
    // What merged on the way is known to be of all: the last rank is named for it.
    let speaker = |index| if payloads.len() == 1 { last } else { index };
    let one_each = payloads.len() as u64 == total_ranks;
    let (mut nodes, mut covered) = (Vec::new(), 0);
    for (index, payload) in payloads.iter().enumerate() {
        let refuse = |message| operation.refuse(speaker(index), message);
        let Payload::Nodes(of_rank) = payload else { return Err(refuse("it carries no numbers".to_owned())) };
        let start = covered;
        covered = check_nodes(of_rank, start, channels).map_err(refuse)?;
        // Where each process holds one rank, the first that claims another number is known to be wrong.
        if one_each && covered - start != 1 {
            return Err(refuse(format!("its nodes cover {} ranks, expected 1", covered - start)));
        }
        nodes.extend(of_rank.iter().map(from_payload));
    }
    if covered != total_ranks {
        let message = format!("with it the nodes cover {covered} ranks, expected {total_ranks}");
        return Err(operation.refuse(last, message));
    }
    Ok(merge_nodes(nodes, merge_channels).unwrap_or_default())
}

/// Checks that a rank's nodes go on where the ranks before it end, with numbers for every channel; returns where they end.
fn check_nodes(nodes: &[NodePayload], start: u64, channels: u64) -> Result<u64, String> {
    nodes.iter().try_fold(start, |next, node| {
        let size = 1u64.checked_shl(node.level).unwrap_or(u64::MAX);
        if node.index.checked_mul(size) != Some(next) {
            return Err(format!("a node covers ranks from {}·{size}, expected from {next}", node.index));
        }
        if node.values.len() as u64 != channels {
            return Err(format!("a node holds numbers of {} channels, expected {channels}", node.values.len()));
        }
        Ok(next.saturating_add(size))
    })
}
