//! Merges the values of all processes, in one message for one call or for several.

use std::sync::atomic::Ordering;

use super::call::{Call, Ranks};
use super::summary::Summary;
use super::{Mergeable, merge_parts, merge_ranks};
use crate::checksum::Manifest;
use crate::collective::{
    Again, Answer, Header, ListError, NodePayload, Operation, Payload, Phase, Said, UNANNOUNCED,
};
use crate::error::ExchangeError;
use crate::stats::tree::{merge_nodes, merge_run};

/// This process's part of a call's exchange.
#[derive(Clone, Debug)]
pub(crate) struct Contribution<'a, T> {
    pub call: &'a Call,
    /// Values of its ranks, `local[rank][channel]`.
    pub local: &'a [Vec<T>],
    /// The state, where its checksum is to be announced.
    pub state: Option<Manifest>,
    /// The version of that state.
    pub state_version: u64,
}

impl Call {
    /// Merges the values of this process with those of all others, for several calls of one process
    /// group in one message. Returns `[call][channel]`. The bits are the same on every rank, and
    /// the same as for each call by itself.
    ///
    /// If processes hold different numbers of ranks, the first exchange of a layer shows it. They
    /// exchange the numbers and repeat the exchange.
    ///
    /// Returns `None` if only some ranks announce the state of a call. All ranks see that, and
    /// merge once more with the states of all their calls, in the same turn. An error has the
    /// number of its call, if it concerns one call. The turns of the calls do not pass.
    pub async fn merge<T: Mergeable>(
        parts: &[Contribution<'_, T>],
    ) -> Result<Option<Vec<Vec<T>>>, ListError> {
        let Some(first) = parts.first() else { return Ok(Some(Vec::new())) };
        if first.call.exchange.group().world_size() == 1 {
            return Ok(Some(parts.iter().map(|part| merge_ranks(part.local)).collect()));
        }
        let operations: Vec<&Operation> = parts.iter().map(|part| &part.call.operation).collect();
        let payloads = loop {
            let say = || parts.iter().map(Contribution::say).collect();
            let answers = Operation::exchange(&operations, say, Some(merge_parts::<T>)).await?;
            let mut payloads = Vec::with_capacity(parts.len());
            let mut unknown = false;
            let mut unannounced = false;
            for (index, (part, answer)) in parts.iter().zip(answers).enumerate() {
                let again = part.judge(&answer).map_err(ListError::of(index))?;
                unannounced |= again.states;
                unknown |= again.ranks;
                if !again.ranks {
                    part.call.exchange.has_learnt(part.call.exchange.ranks());
                }
                payloads.push(answer.payloads);
            }
            if unknown {
                learn(parts).await?;
            }
            if unannounced {
                parts.iter().for_each(|part| part.call.asked.store(true, Ordering::Relaxed));
                return Ok(None);
            }
            if !unknown {
                break payloads;
            }
        };
        let merged = parts.iter().zip(payloads).enumerate().map(|(index, (part, payloads))| {
            let exchange = &part.call.exchange;
            if part.state.is_some() {
                exchange.has_announced(part.state_version);
            }
            let merged = merge_payloads(
                &part.call.operation,
                payloads,
                part.call.operation.header().phase.pairs(exchange.channels),
                exchange.total_ranks(),
            );
            merged.map_err(ListError::of(index))
        });
        merged.collect::<Result<_, _>>().map(Some)
    }
}

impl<T: Mergeable> Contribution<'_, T> {
    fn say(&self) -> Said {
        let exchange = &self.call.exchange;
        let ranks = self.local.iter().map(|channels| Summary::of(channels));
        let nodes = merge_run(exchange.ranks().first, ranks, Summary::merge);
        let header = Header {
            state: self.state.as_ref().map_or(UNANNOUNCED, |state| state.checksum),
            ranks: exchange.ranks_to_announce(),
            ..self.call.operation.header().clone()
        };
        let payload = Payload::Nodes(nodes.into_iter().map(Summary::into_payload).collect());
        Said { header, payload, state: self.state.clone() }
    }

    /// Fields to announce once more: those that ranks announce of themselves and were not asked for
    /// yet.
    fn judge(&self, answer: &Answer) -> Result<Again, ExchangeError> {
        let states = !self.call.asked.load(Ordering::Relaxed);
        self.call
            .operation
            .judge(answer, Again { states, ranks: self.call.exchange.ranks_to_announce() != 0 })
    }
}

/// Gathers the numbers of ranks of every process, in an exchange of its own. If the numbers of one
/// call are unknown, it gathers those of all calls, because they share the turn of the first.
async fn learn<T>(parts: &[Contribution<'_, T>]) -> Result<(), ListError> {
    let operations: Vec<&Operation> = parts.iter().map(|part| &part.call.operation).collect();
    let say = |part: &Contribution<'_, T>| {
        let header = Header { phase: Phase::Devices, ..part.call.operation.header().clone() };
        let payload = Payload::Bytes(part.call.exchange.local_ranks.to_le_bytes().to_vec());
        Said { header, payload, state: None }
    };
    let gathered = Operation::gather_list(&operations, || parts.iter().map(say).collect()).await?;
    for (index, (part, payloads)) in parts.iter().zip(gathered).enumerate() {
        let call = part.call;
        let mut ranks = Ranks { first: 0, total: 0 };
        for (rank, payload) in payloads.iter().enumerate() {
            let refuse = || {
                let message = "it gives no number of devices".to_owned();
                ListError::of(index)(call.operation.refuse(rank, message))
            };
            if rank == call.exchange.group().rank() {
                ranks.first = ranks.total;
            }
            ranks.total += count(payload).ok_or_else(refuse)?;
        }
        call.exchange.has_learnt(ranks);
    }
    Ok(())
}

/// A number of devices, small enough that the sum over all processes does not overflow.
fn count(payload: &Payload) -> Option<u64> {
    let Payload::Bytes(bytes) = payload else { return None };
    let count = u64::from_le_bytes(bytes.as_slice().try_into().ok()?);
    (1..=u32::MAX.into()).contains(&count).then_some(count)
}

/// Merges the nodes of all processes: one payload of each, or the one payload of an all-reduce.
pub(super) fn merge_payloads<T: Mergeable>(
    operation: &Operation,
    payloads: Vec<Payload>,
    channels: u64,
    total_ranks: u64,
) -> Result<Vec<T>, ExchangeError> {
    let last = operation.group().world_size() - 1;
    // The payload of an all-reduce covers all ranks. Its errors name the last one.
    let is_reduced = payloads.len() == 1;
    let speaker = |index| if is_reduced { last } else { index };
    let one_each = payloads.len() as u64 == total_ranks;
    let mut nodes = Vec::with_capacity(payloads.len());
    let mut covered = 0;
    for (index, payload) in payloads.into_iter().enumerate() {
        let refuse = |message| operation.refuse(speaker(index), message);
        let Payload::Nodes(of_rank) = payload else {
            return Err(refuse("it carries no values".to_owned()));
        };
        let start = covered;
        covered = check_nodes(&of_rank, start, channels).map_err(refuse)?;
        // If each process holds one rank, the first that claims another number is wrong.
        if one_each && covered - start != 1 {
            return Err(refuse(format!("its nodes cover {} ranks, expected 1", covered - start)));
        }
        for node in of_rank {
            nodes.push(Summary::<T>::of_payload(node).map_err(refuse)?);
        }
    }
    if covered != total_ranks {
        let message = format!("with it the nodes cover {covered} ranks, expected {total_ranks}");
        return Err(operation.refuse(last, message));
    }
    Ok(merge_nodes(nodes, Summary::merge).map(Summary::into_channels).unwrap_or_default())
}

/// Checks that a rank's nodes start where the ranks before it end, with values for every channel.
/// Returns their end.
fn check_nodes(nodes: &[NodePayload], start: u64, channels: u64) -> Result<u64, String> {
    nodes.iter().try_fold(start, |next, node| {
        let size = 1u64.checked_shl(node.level).unwrap_or(u64::MAX);
        if node.index.checked_mul(size) != Some(next) {
            return Err(format!(
                "a node covers ranks from {}·{size}, expected from {next}",
                node.index
            ));
        }
        if node.values.len() as u64 != channels {
            return Err(format!(
                "a node holds values of {} channels, expected {channels}",
                node.values.len()
            ));
        }
        Ok(next.saturating_add(size))
    })
}
