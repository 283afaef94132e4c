//! A layer as a member of its process group. It owns everything that its exchanges need.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::{AffineParameters, Base, state_of};
use crate::checksum::Manifest;
use crate::collective::Phase;
use crate::config::{BatchNormConfig, Momentum, Renorm, RunningVariance};
use crate::device::Device;
use crate::error::{ArgumentError, Error};
use crate::exchange::{Call, Exchange};
use crate::state::StateDict;
use crate::stats::{GlobalStatistics, RunningStats};

/// Running statistics, the only thing that a pass changes. A call takes a snapshot; no lock is held
/// across a wait.
#[derive(Clone, Debug)]
pub(super) struct Running(Arc<Mutex<Option<Arc<RunningStats>>>>);

impl Running {
    pub fn new(running: Option<RunningStats>) -> Self {
        Self(Arc::new(Mutex::new(running.map(Arc::new))))
    }

    pub fn snapshot(&self) -> Option<Arc<RunningStats>> {
        self.lock().clone()
    }

    pub fn set(&self, running: RunningStats) {
        *self.lock() = Some(Arc::new(running));
    }

    fn update(&self, global: &GlobalStatistics, momentum: Momentum, variance: RunningVariance) {
        if let Some(running) = &mut *self.lock() {
            Arc::make_mut(running).update(global, momentum, variance);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<RunningStats>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error of one call of several, by its number, or of all of them.
pub(crate) struct Failure {
    pub index: Option<usize>,
    pub error: Error,
}

impl Failure {
    /// Adds the number of its call to an error.
    pub fn of<E: Into<Error>>(index: usize) -> impl Fn(E) -> Self {
        move |error| Self { index: Some(index), error: error.into() }
    }

    /// An error with the number of its request.
    pub fn of_request(index: usize, error: Error) -> Self {
        Self { index: Some(index), error }
    }

    /// The one result of a call of one layer.
    pub fn single<T>(results: Result<Vec<T>, Self>) -> Result<T, Error> {
        let result = results.map_err(|failure| failure.error)?.pop();
        result.ok_or_else(|| ArgumentError::no_tensor().into())
    }

    /// The error as a joint call returns it.
    pub fn joint(self) -> Error {
        match self.index {
            Some(index) => Error::Joint { index, error: Box::new(self.error) },
            None => self.error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { index: None, error }
    }
}

/// The parts of a layer that its exchanges need.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub exchange: Arc<Exchange>,
    pub parameters: Arc<Vec<AffineParameters>>,
    pub running: Running,
    /// The version of the state when the call was made. A state that is loaded later is another.
    pub state_version: u64,
    pub channels: usize,
    momentum: Momentum,
    running_variance: RunningVariance,
    renorm: Option<Renorm>,
    settings: Manifest,
    /// Time that the slowest device may take for a result. The host computes while it is polled.
    patience: Duration,
}

impl Member {
    pub fn new(base: &Base, exchange: &Arc<Exchange>, running: &Running) -> Self {
        let BatchNormConfig { num_features, momentum, running_variance, renorm, .. } = base.config;
        let gpus = base.devices.iter().filter(|device| !device.is_host());
        Self {
            exchange: exchange.clone(),
            parameters: base.parameters.clone(),
            running: running.clone(),
            state_version: exchange.state_version(),
            channels: num_features,
            momentum,
            running_variance,
            renorm,
            settings: base.manifest.clone(),
            patience: gpus.map(Device::deadline).max().unwrap_or_default(),
        }
    }

    /// Whether other processes or threads hold ranks too.
    pub fn has_peers(&self) -> bool {
        self.exchange.group().world_size() > 1
    }

    /// Begins a call that exchanges something.
    pub fn begin(&self, phase: Phase, subject: u64) -> Result<Call, Error> {
        Ok(self.exchange.begin(phase, subject, &self.settings, self.patience)?)
    }

    /// Gives the statistics of a batch the running ones before it, where the layer renormalizes.
    pub fn note_running(&self, global: &mut GlobalStatistics) {
        if let (Some(limits), Some(running)) = (self.renorm, self.running.snapshot()) {
            global.set_renormalized(RunningStats::clone(&running), limits);
        }
    }

    /// Updates the running statistics with those of a batch.
    pub fn update_running(&self, global: &GlobalStatistics) {
        self.running.update(global, self.momentum, self.running_variance);
    }

    /// Parameters, read from the first rank's device, and running statistics.
    pub async fn state(&self) -> Result<StateDict, Error> {
        let running = self.running.snapshot();
        let parameters = state_of(&self.parameters).await?;
        Ok(match running {
            Some(running) => parameters.with_running(&running),
            None => parameters,
        })
    }
}

/// Phase and subject of an exchange that a layer will begin.
pub(super) struct Begin {
    pub member: Member,
    pub phase: Phase,
    pub subject: u64,
}

/// A layer that exchanges something.
#[derive(Debug)]
pub(super) struct Communicating {
    pub member: Member,
    /// `None` where it has no peers.
    pub call: Option<Call>,
}

/// The calls of several layers, in their order, with `None` for layers that exchange nothing.
pub(super) type Calls = Vec<Option<Box<Communicating>>>;

/// Begins the calls of layers that exchange something. If one cannot begin, the later ones still
/// do, because [`end`] must notify their peers.
pub(super) fn begin(
    layers: impl IntoIterator<Item = Option<Begin>>,
) -> (Calls, Result<(), Failure>) {
    let mut calls = Vec::new();
    let mut failure = None;
    for (index, layer) in layers.into_iter().enumerate() {
        calls.push(layer.map(|Begin { member, phase, subject }| {
            let begun = member.has_peers().then(|| member.begin(phase, subject)).transpose();
            let call = begun.unwrap_or_else(|error| {
                failure.get_or_insert(Failure::of(index)(error));
                None
            });
            Box::new(Communicating { member, call })
        }));
    }
    (calls, failure.map_or(Ok(()), Err))
}

/// Ends the calls of several layers. One call of each process group notifies the peers of a
/// failure. It is the call of the failed layer, if that layer communicates.
pub(super) fn end<T>(calls: Calls, result: Result<T, Failure>) -> Result<T, Failure> {
    if calls.iter().all(Option::is_none) {
        return result;
    }
    let failure = result.as_ref().err();
    let failed = failure.and_then(|failure| failure.index);
    let mut calls: Vec<_> = calls.into_iter().enumerate().collect();
    calls.sort_by_key(|(index, _)| Some(*index) != failed);
    let mut notified: Vec<Arc<Exchange>> = Vec::new();
    for layer in calls.into_iter().filter_map(|(_, layer)| layer) {
        let Communicating { member, call: Some(call) } = *layer else { continue };
        let is_notified =
            notified.iter().any(|exchange| exchange.group().is_same(member.exchange.group()));
        call.end(
            &failure.filter(|_| !is_notified).map_or(Ok(()), |failure| Err(failure.error.clone())),
        );
        notified.push(member.exchange);
    }
    result
}
