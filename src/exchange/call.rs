//! One layer's place in its process group, and its calls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::checksum::Manifest;
use crate::collective::{Header, Operation, Payload, Phase, Place, ProcessGroup, Settings};
use crate::error::{Error, ExchangeError};

/// A layer's place in its process group.
#[derive(Debug)]
pub(crate) struct Exchange {
    group: ProcessGroup,
    layer: u64,
    name: Arc<str>,
    pub(super) channels: u64,
    /// Ranks of this process.
    pub(super) local_ranks: u64,
    shared: Arc<Shared>,
}

/// State that all names of a layer share.
#[derive(Debug, Default)]
struct Shared {
    steps: AtomicU64,
    /// How often the state was replaced.
    version: AtomicU64,
    /// The first version of the state that was not announced.
    unannounced: AtomicU64,
    /// Set by the first exchange.
    ranks: OnceLock<Ranks>,
}

impl Exchange {
    /// The next layer of the group, with `channels` channels and `local_ranks` ranks in this
    /// process. It does not communicate. The first exchange brings the numbers of the others.
    pub fn new(group: &ProcessGroup, name: &str, channels: usize, local_ranks: usize) -> Self {
        Self {
            layer: group.next_layer(),
            group: group.clone(),
            name: name.into(),
            channels: channels as u64,
            local_ranks: local_ranks as u64,
            shared: Arc::default(),
        }
    }

    /// The same layer under another name.
    pub fn renamed(&self, name: &str) -> Self {
        let group = self.group.clone();
        let shared = self.shared.clone();
        Self { group, shared, name: name.into(), ..*self }
    }

    /// The layer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The layer's name, and its number in the group.
    pub fn label(&self) -> (&str, u64) {
        (&self.name, self.layer)
    }

    pub fn group(&self) -> &ProcessGroup {
        &self.group
    }

    /// Ranks of all processes. Before the first exchange it assumes that all hold as many as this
    /// one.
    pub fn total_ranks(&self) -> u64 {
        self.ranks().total
    }

    /// The place of this process's ranks. Before the first exchange it assumes that all processes
    /// hold as many as this one.
    pub(super) fn ranks(&self) -> Ranks {
        let of_all = |processes: usize| self.local_ranks.saturating_mul(processes as u64);
        let assumed =
            || Ranks { first: of_all(self.group.rank()), total: of_all(self.group.world_size()) };
        self.shared.ranks.get().copied().unwrap_or_else(assumed)
    }

    /// The field `ranks` of a header: 0 once all processes know each other's number.
    pub(super) fn ranks_to_announce(&self) -> u64 {
        if self.shared.ranks.get().is_some() { 0 } else { self.local_ranks }
    }

    /// Stores the place of this process's ranks for good.
    pub(super) fn has_learnt(&self, ranks: Ranks) {
        self.shared.ranks.get_or_init(|| ranks);
    }

    /// The version of the state: how often it was replaced. Updates by a batch do not count.
    pub fn state_version(&self) -> u64 {
        self.shared.version.load(Ordering::Relaxed)
    }

    /// Whether an exchange should announce the checksum of this version of the state. The first one
    /// with peers does.
    pub fn must_announce(&self, version: u64) -> bool {
        self.group.world_size() > 1 && version >= self.shared.unannounced.load(Ordering::Relaxed)
    }

    /// Lets exchanges that begin from now on announce the checksum of the state again.
    pub fn announce_again(&self) {
        self.shared.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers that the checksum of this version of the state has been announced.
    pub(super) fn has_announced(&self, version: u64) {
        self.shared.unannounced.fetch_max(version + 1, Ordering::Relaxed);
    }

    /// Begins a call that will exchange something. From now on the peers are notified if it fails
    /// or is dropped.
    ///
    /// `subject` is the exchange of its forward in backward, the sending rank in a broadcast, and
    /// otherwise 0. `settings` are those of the layer. `patience` is the time that its devices may
    /// take. Calls exchange in the order in which they begin.
    pub fn begin(
        self: &Arc<Self>,
        phase: Phase,
        subject: u64,
        settings: &Manifest,
        patience: Duration,
    ) -> Result<Call, ExchangeError> {
        let step = self.shared.steps.fetch_add(1, Ordering::Relaxed);
        let header = Header {
            layer: self.layer,
            name: self.name.as_ref().to_owned(),
            step,
            subject,
            channels: self.channels,
            config: settings.checksum,
            ..self.group.header(phase)
        };
        let at = Place { layer: Some((self.layer, self.name.clone())), phase, step };
        let settings = Settings::Layer(settings.text.clone());
        let operation = Operation::begin(&self.group, header, at, settings, patience)?;
        Ok(Call { exchange: self.clone(), operation, asked: AtomicBool::new(false) })
    }
}

/// The place of this process's ranks among all ranks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranks {
    pub first: u64,
    pub total: u64,
}

/// A call of a layer that exchanges something. If it is dropped before its end, it notifies the
/// peers that this rank has failed.
///
/// Its exchanges hold back later calls of this rank until [`pass`](Self::pass), its end, or its
/// drop.
#[derive(Debug)]
pub(crate) struct Call {
    pub(super) exchange: Arc<Exchange>,
    pub(super) operation: Operation,
    /// Whether only some ranks have announced their state. From now on all do.
    pub(super) asked: AtomicBool,
}

impl Call {
    /// Number of this call among those of the layer.
    pub fn step(&self) -> u64 {
        self.operation.header().step
    }

    /// Waits until the exchanges of earlier calls are over.
    pub async fn come(&self) -> Result<(), ExchangeError> {
        self.operation.come().await
    }

    /// Lets the exchanges of later calls begin, because those of this call are over.
    pub fn pass(&self) {
        self.operation.pass();
    }

    /// The bytes of process `from`. The headers check that all expect it. The bytes of others are
    /// ignored.
    pub async fn broadcast(&self, from: usize, own: Vec<u8>) -> Result<Vec<u8>, ExchangeError> {
        match self.operation.gather(Payload::Bytes(own)).await?.into_iter().nth(from) {
            Some(Payload::Bytes(bytes)) => Ok(bytes),
            _ => Err(self.operation.refuse(from, "it carries no state".to_owned())),
        }
    }

    /// Ends the call. The peers are notified of a failure, unless every rank has found it alike.
    pub fn end<T>(self, result: &Result<T, Error>) {
        self.operation.end(result);
    }
}
