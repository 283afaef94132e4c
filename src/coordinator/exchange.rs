//! One layer's exchanges: the local ranks merge first, then the process groups' ranks, along one tree.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::peers::{check_headers, check_nodes};
use super::{Mergeable, from_payload, merge_channels, to_payload};
use crate::collective::{Header, Payload, Phase, ProcessGroup};
use crate::error::{Error, ExchangeError};
use crate::stats::tree::{merge_all, merge_nodes, merge_run};

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
    pub fn begin(&self, phase: Phase) -> Result<Call<'_>, ExchangeError> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        let (layer, name, channels, config) = (self.layer, self.name.clone(), self.channels, self.config);
        let header = Header { layer, name, step, channels, config, ..self.group.header(phase) };
        let at = describe(&header);
        self.group.check(&at)?;
        Ok(Call { exchange: self, header, at, open: true })
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
        let at = "making of a layer over several devices";
        let frames = group.gather(group.header(Phase::Split), Payload::Bytes(own.to_le_bytes().to_vec()), at).await?;
        let mut counts = Vec::with_capacity(frames.len());
        for (rank, frame) in frames.iter().enumerate() {
            let count = match &frame.payload {
                Payload::Bytes(bytes) => bytes.as_slice().try_into().ok().map(u64::from_le_bytes),
                _ => None,
            };
            let (rank, message) = (group.world_rank(rank), "it does not tell a number of ranks".to_owned());
            let refused = || group.poison(ExchangeError::Frame { at: at.to_owned(), rank, message });
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
    exchange: &'a Exchange,
    header: Header,
    at: String,
    open: bool,
}

impl Call<'_> {
    /// Merges what the local ranks have, `local[rank][channel]`, with what all others have; the same bits on every rank.
    pub async fn merge<T: Mergeable>(&self, local: &[Vec<T>], state: Option<u64>) -> Result<Vec<T>, ExchangeError> {
        let Exchange { group, channels, first_rank, total_ranks, .. } = self.exchange;
        if group.world_size() == 1 {
            return Ok(merge_all(local, merge_channels).unwrap_or_default());
        }
        let own = merge_run(*first_rank, local, merge_channels);
        let payload = Payload::Nodes(own.iter().map(to_payload).collect());
        let mut nodes = Vec::new();
        for (rank, payload) in self.gather(payload, state).await?.into_iter().enumerate() {
            match payload {
                Payload::Nodes(of_rank) => nodes.extend(of_rank),
                _ => return Err(self.refuse(rank, "it carries no numbers".to_owned())),
            }
        }
        check_nodes(&nodes, *total_ranks, *channels as usize).map_err(|message| self.refuse(0, message))?;
        Ok(merge_nodes(nodes.into_iter().map(from_payload).collect(), merge_channels).unwrap_or_default())
    }

    /// The bytes of process `from`, of which every process must know that it is the one; the others' are ignored.
    pub async fn broadcast(&self, from: usize, own: Vec<u8>) -> Result<Vec<u8>, ExchangeError> {
        let message = [&(from as u64).to_le_bytes()[..], &own].concat();
        let mut sent = None;
        for (rank, payload) in self.gather(Payload::Bytes(message), None).await?.into_iter().enumerate() {
            let Payload::Bytes(mut bytes) = payload else {
                return Err(self.refuse(rank, "it carries numbers".to_owned()));
            };
            let named = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            if named != Some(from as u64) {
                let named = named.map_or_else(|| "no rank".to_owned(), |rank| format!("rank {rank}"));
                let message = format!("it expects the state of {named}, this rank that of rank {from}");
                return Err(self.refuse(rank, message));
            }
            if rank == from {
                sent = Some(bytes.split_off(8));
            }
        }
        sent.ok_or_else(|| self.refuse(from, "there is none".to_owned()))
    }

    async fn gather(&self, payload: Payload, state: Option<u64>) -> Result<Vec<Payload>, ExchangeError> {
        let group = &self.exchange.group;
        let header = Header { state: state.unwrap_or(0), ..self.header.clone() };
        let frames = group.gather(header, payload, &self.at).await?;
        check_headers(&frames, &self.at, |rank| group.world_rank(rank)).map_err(|error| group.poison(error))?;
        self.exchange.announced.fetch_or(state.is_some(), Ordering::Relaxed);
        Ok(frames.into_iter().map(|frame| frame.payload).collect())
    }

    fn refuse(&self, rank: usize, message: String) -> ExchangeError {
        let (group, at) = (&self.exchange.group, self.at.clone());
        group.poison(ExchangeError::Frame { at, rank: group.world_rank(rank), message })
    }

    /// Ends the call. A failure is told to the peers, unless it is one that every rank has found alike.
    pub fn end<T>(mut self, result: &Result<T, Error>) {
        self.open = false;
        match result {
            Ok(_) | Err(Error::Batch(_)) => {}
            Err(error) => self.exchange.group.abort(self.header.clone(), &self.at, &error.to_string()),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.open {
            let panicked = std::thread::panicking();
            let reason = if panicked { "it panicked" } else { "its call was dropped before it ended" };
            self.exchange.group.abort(self.header.clone(), &self.at, reason);
        }
    }
}
