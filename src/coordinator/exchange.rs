//! One layer's exchanges: the local ranks merge first, then the process groups' ranks, along one tree.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{Mergeable, from_payload, merge_channels, merge_parts, merge_ranks, to_payload};
use crate::collective::{Frame, Header, NodePayload, Payload, Phase, ProcessGroup, Turn, UNTOLD};
use crate::error::{Error, ExchangeError};
use crate::stats::tree::{merge_nodes, merge_run};

/// A layer's place in its process group.
#[derive(Debug)]
pub(crate) struct Exchange {
    group: ProcessGroup,
    layer: u64,
    name: String,
    channels: u64,
    config: u64,
    /// The first of this process's ranks among those of all processes, and how many all are.
    first_rank: u64,
    total_ranks: u64,
    steps: AtomicU64,
    announced: AtomicBool,
}

impl Exchange {
    /// A layer of `channels` channels with a checksum of its configuration; this process holds `local_ranks` ranks.
    pub fn new(group: &ProcessGroup, name: &str, channels: usize, config: u64, ranks: Ranks) -> Self {
        Self {
            layer: group.next_layer(),
            group: group.clone(),
            name: name.to_owned(),
            channels: channels as u64,
            config,
            first_rank: ranks.first,
            total_ranks: ranks.total,
            steps: AtomicU64::new(0),
            announced: AtomicBool::new(false),
        }
    }

    /// Remembers that the checksum of the state has been told.
    pub(super) fn has_announced(&self, state: Option<u64>) {
        self.announced.fetch_or(state.is_some(), Ordering::Relaxed);
    }

    pub fn group(&self) -> &ProcessGroup {
        &self.group
    }

    /// Ranks of all processes.
    pub fn total_ranks(&self) -> u64 {
        self.total_ranks
    }

    /// Whether the next exchange should tell the checksum of the state: the first one with peers.
    pub fn must_announce(&self) -> bool {
        self.group.world_size() > 1 && !self.announced.load(Ordering::Relaxed)
    }

    /// Lets the next exchange tell the checksum of the state again.
    pub fn announce_again(&self) {
        self.announced.store(false, Ordering::Relaxed);
    }

    /// Begins a call that will exchange something: from now on the peers learn when it fails or is dropped.
    ///
    /// `subject` tells what it is about: of backward the exchange of its forward, of a broadcast the rank; else 0. `patience`
    /// is how long its devices may take. Calls exchange in the order in which they begin.
    pub fn begin(&self, phase: Phase, subject: u64, patience: Duration) -> Result<Call<'_>, ExchangeError> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        let (layer, name, channels, config) = (self.layer, self.name.clone(), self.channels, self.config);
        let header = Header { layer, name, step, subject, channels, config, ..self.group.header(phase) };
        let at = describe(&header);
        self.group.check(&at)?;
        let turn = self.group.turn(&at, patience);
        Ok(Call { exchange: self, header, at, turn, open: true })
    }
}

/// Where the ranks of this process stand among those of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranks {
    pub first: u64,
    pub total: u64,
}

impl Ranks {
    /// Learns from all processes how many ranks each holds.
    pub async fn gather(group: &ProcessGroup, own: u64) -> Result<Self, ExchangeError> {
        if group.world_size() == 1 {
            return Ok(Self { first: 0, total: own });
        }
        let at = &Phase::Devices.to_string();
        let turn = group.turn(at, Duration::ZERO);
        let (header, own) = (group.header(Phase::Devices), Payload::Bytes(own.to_le_bytes().to_vec()));
        let frames = group.gather(&turn, header, own, at).await?;
        let mut counts = Vec::with_capacity(frames.len());
        for (rank, frame) in frames.iter().enumerate() {
            let count = match &frame.payload {
                Payload::Bytes(bytes) => bytes.as_slice().try_into().ok().map(u64::from_le_bytes),
                _ => None,
            };
            let (rank, message) = (group.world_rank(rank), "it does not tell a number of ranks".to_owned());
            let refused = || group.poison(ExchangeError::Frame { at: at.clone(), rank, message });
            counts.push(count.ok_or_else(refused)?);
        }
        let sum = |counts: &[u64]| counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        Ok(Self { first: sum(&counts[..group.rank()]), total: sum(&counts) })
    }
}

/// What a header is about, for errors.
fn describe(header: &Header) -> String {
    let name = if header.name.is_empty() { String::new() } else { format!(" {:?}", header.name) };
    format!("layer {}{name}, {}, exchange {}", header.layer, header.phase, header.step)
}

/// A call that exchanges something. Dropped before its end, it tells the peers that this rank has failed.
pub(crate) struct Call<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) header: Header,
    pub(super) at: String,
    pub(super) turn: Turn,
    open: bool,
}

impl Call<'_> {
    /// Merges what the local ranks have, `local[rank][channel]`, with what all others have; the same bits on every rank. All
    /// ranks tell the checksum of their state, or none does.
    pub async fn merge<T: Mergeable>(&self, local: &[Vec<T>], state: Option<u64>) -> Result<Vec<T>, ExchangeError> {
        let group = &self.exchange.group;
        if group.world_size() == 1 {
            return Ok(merge_ranks(local));
        }
        let (own, header) = (self.own_nodes(local), self.header_telling(state));
        let merged = if group.merges_on_the_way() {
            self.merge_whole(group.merge(&self.turn, header, own, merge_parts::<T>, &self.at).await?)
        } else {
            self.merge_gathered(payloads(group.gather(&self.turn, header, Payload::Nodes(own), &self.at).await?))
        };
        self.exchange.has_announced(state);
        merged
    }

    /// [`merge`](Self::merge) where a rank tells its state if it has to. `None` where only some do: all ranks know then,
    /// and merge once more, with the state of each.
    pub async fn merge_telling<T: Mergeable>(
        &self,
        local: &[Vec<T>],
        state: Option<u64>,
    ) -> Result<Option<Vec<T>>, ExchangeError> {
        let group = &self.exchange.group;
        if group.world_size() == 1 {
            return Ok(Some(merge_ranks(local)));
        }
        let (own, header) = (self.own_nodes(local), self.header_telling(state));
        let merged = if group.merges_on_the_way() {
            let nodes = group.merge_telling(&self.turn, header, own, merge_parts::<T>, &self.at).await?;
            nodes.map(|nodes| self.merge_whole(nodes))
        } else {
            let frames = group.gather_telling(&self.turn, header, Payload::Nodes(own), &self.at).await?;
            frames.map(|frames| self.merge_gathered(payloads(frames)))
        };
        if merged.is_some() {
            self.exchange.has_announced(state);
        }
        merged.transpose()
    }

    /// The header with the checksum of the state, where it is told.
    pub(super) fn header_telling(&self, state: Option<u64>) -> Header {
        Header { state: state.unwrap_or(UNTOLD), ..self.header.clone() }
    }

    /// What this process tells of what its ranks have.
    pub(super) fn own_nodes<T: Mergeable>(&self, local: &[Vec<T>]) -> Vec<NodePayload> {
        merge_run(self.exchange.first_rank, local, merge_channels).iter().map(to_payload).collect()
    }

    /// Merges what all processes have told.
    pub(super) fn merge_gathered<T: Mergeable>(&self, gathered: Vec<Payload>) -> Result<Vec<T>, ExchangeError> {
        let Exchange { group, channels, total_ranks, .. } = self.exchange;
        let (mut nodes, mut covered) = (Vec::new(), 0);
        for (rank, payload) in gathered.into_iter().enumerate() {
            let Payload::Nodes(of_rank) = payload else {
                return Err(self.refuse(rank, "it carries no numbers".to_owned()));
            };
            let start = covered;
            covered = check_nodes(&of_rank, start, *channels).map_err(|message| self.refuse(rank, message))?;
            // Where each process holds one rank, the first that claims another number is known to be wrong.
            if *total_ranks == group.world_size() as u64 && covered - start != 1 {
                return Err(self.refuse(rank, format!("its nodes cover {} ranks, expected 1", covered - start)));
            }
            nodes.extend(of_rank);
        }
        if covered != *total_ranks {
            let message = format!("with it the nodes cover {covered} ranks, expected {total_ranks}");
            return Err(self.refuse(group.world_size() - 1, message));
        }
        Ok(merge_nodes(nodes.into_iter().map(from_payload).collect(), merge_channels).unwrap_or_default())
    }

    /// Merges the nodes that the transport has made of those of all processes.
    fn merge_whole<T: Mergeable>(&self, nodes: Vec<NodePayload>) -> Result<Vec<T>, ExchangeError> {
        let Exchange { group, channels, total_ranks, .. } = self.exchange;
        let last = group.world_size() - 1;
        let covered = check_nodes(&nodes, 0, *channels).map_err(|message| self.refuse(last, message))?;
        if covered != *total_ranks {
            return Err(self.refuse(last, format!("with it the nodes cover {covered} ranks, expected {total_ranks}")));
        }
        Ok(merge_nodes(nodes.into_iter().map(from_payload).collect(), merge_channels).unwrap_or_default())
    }

    /// Number of this exchange among those of the layer.
    pub fn step(&self) -> u64 {
        self.header.step
    }

    /// The bytes of one process, of which the headers say that all expect it; the others' are ignored.
    pub async fn broadcast(&self, from: usize, own: Vec<u8>) -> Result<Vec<u8>, ExchangeError> {
        let header = self.header_telling(None);
        let frames = self.exchange.group.gather(&self.turn, header, Payload::Bytes(own), &self.at).await?;
        match payloads(frames).into_iter().nth(from) {
            Some(Payload::Bytes(bytes)) => Ok(bytes),
            _ => Err(self.refuse(from, "it carries no state".to_owned())),
        }
    }

    fn refuse(&self, rank: usize, message: String) -> ExchangeError {
        let (group, at) = (&self.exchange.group, self.at.clone());
        group.poison(ExchangeError::Frame { at, rank: group.world_rank(rank), message })
    }

    /// Ends the call. A failure is told to the peers, unless it is one that every rank has found alike.
    pub fn end<T>(mut self, result: &Result<T, Error>) {
        self.open = false;
        match result {
            Ok(_) | Err(Error::Batch(_) | Error::Group(_)) => {}
            Err(error) => self.exchange.group.fail(self.header.clone(), &self.at, &error.to_string()),
        }
    }
}

fn payloads(frames: Vec<Frame>) -> Vec<Payload> {
    frames.into_iter().map(|frame| frame.payload).collect()
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

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.open {
            let panicked = std::thread::panicking();
            let reason = if panicked { "it panicked" } else { "its call was dropped before it ended" };
            self.exchange.group.fail(self.header.clone(), &self.at, reason);
        }
    }
}
