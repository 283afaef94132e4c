//! An operation of all ranks, from its first check to its end: a layer's call, or one of the
//! process group itself.
//!
//! It holds the rank's turn. It notifies the peers when it fails or is dropped.

use std::fmt::Display;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::comparison::Settings;
use super::frame::{Header, Payload};
use super::turns::Turn;
use super::{CollectiveError, Place, ProcessGroup};
use crate::error::{Error, ExchangeError};

/// An operation that communicates. Dropped before its end, it notifies the peers that this rank has
/// failed.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(super) group: ProcessGroup,
    pub(super) header: Header,
    pub(super) at: Place,
    /// Source of the checksum `config` of the header.
    pub(super) settings: Settings,
    pub(super) turn: Turn,
    open: bool,
}

impl Operation {
    /// Begins an operation. From now on the peers are notified if it fails. Operations exchange in
    /// the order in which they begin. `patience` is the time that its devices may take before its
    /// exchange. `settings` are the source of the header's checksum.
    pub fn begin(
        group: &ProcessGroup,
        header: Header,
        at: Place,
        settings: Settings,
        patience: Duration,
    ) -> Result<Self, ExchangeError> {
        group.check(&at)?;
        let turn = group.turn(at.clone(), patience);
        Ok(Self { group: group.clone(), header, at, settings, turn, open: true })
    }

    pub fn group(&self) -> &ProcessGroup {
        &self.group
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Lets the next operation of this rank exchange. Its own exchanges are over.
    pub fn pass(&self) {
        self.turn.pass();
    }

    /// One more exchange begins. Its own deadline ends it before the limit of the turn does.
    pub(super) fn goes_on(&self) {
        self.turn.go_on(self.group.deadline().saturating_mul(2));
    }

    /// The error of a rank's unusable message.
    pub fn refuse(&self, rank: usize, message: String) -> ExchangeError {
        self.group.poison(self.unusable(rank, message))
    }

    pub(super) fn unusable(&self, rank: usize, message: String) -> ExchangeError {
        ExchangeError::Frame { at: self.at.to_string(), rank: self.group.world_rank(rank), message }
    }

    /// Ends the operation. The peers are notified of a failure, unless every rank finds it by
    /// itself.
    pub fn end<T>(mut self, result: &Result<T, Error>) {
        self.open = false;
        if let Err(error) = result
            && !every_rank_finds(error)
        {
            self.fail(&self.reason(error));
        }
    }

    /// The text of an error for the notice, which names the place itself.
    fn reason(&self, error: &impl Display) -> String {
        let reason = error.to_string();
        let place = format!("{}: ", self.at);
        reason.strip_prefix(&place).map(str::to_owned).unwrap_or(reason)
    }

    /// An error of the transport that no other rank may have: the group stores it and notifies the
    /// peers in one step, because a stored failure is taken to be known to all.
    pub(super) fn fails_alone(&self, error: CollectiveError) -> ExchangeError {
        let Self { group, header, at, .. } = self;
        let error = group.named(error, at);
        group.fail_with(error.clone(), header.clone(), at, &self.reason(&error));
        error
    }

    /// Notifies the peers that this rank has failed here.
    pub(super) fn fail(&self, reason: &str) {
        self.group.fail(self.header.clone(), &self.at, reason);
    }

    /// Notifies the peers that the future of this operation is dropped before its end.
    fn fail_dropped(&self, reason: &str) {
        self.fail(if std::thread::panicking() { "it panicked" } else { reason });
    }
}

/// Whether all ranks of the group come to this error from the same messages.
fn every_rank_finds(error: &Error) -> bool {
    use ExchangeError::{Mismatch, Setting, State};
    matches!(
        error,
        Error::Batch(_)
            | Error::Group(_)
            | Error::Exchange(Mismatch { .. } | Setting { .. } | State { .. })
    )
}

/// A message that is under way, until its answer has come. If it is dropped before, it notifies the
/// peers of the reason. The transport alone would only find that the rank has left.
pub(super) struct Sent<'a, T> {
    operation: &'a Operation,
    answer: BoxFuture<'static, Result<T, CollectiveError>>,
    is_answered: bool,
}

impl<'a, T> Sent<'a, T> {
    pub fn new(
        operation: &'a Operation,
        answer: BoxFuture<'static, Result<T, CollectiveError>>,
    ) -> Self {
        Self { operation, answer, is_answered: false }
    }
}

impl<T> Future for Sent<'_, T> {
    type Output = Result<T, ExchangeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.answer.poll_unpin(context));
        self.is_answered = true;
        let Operation { group, at, .. } = self.operation;
        Poll::Ready(answer.map_err(|error| group.named(error, at)))
    }
}

impl<T> Drop for Sent<'_, T> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.operation.fail_dropped("its call was dropped while it waited for the other ranks");
        }
    }
}

impl ProcessGroup {
    /// Begins the next operation of the group itself, which belongs to no layer and waits for no
    /// device.
    pub(crate) fn begin(
        &self,
        header: Header,
        settings: Settings,
    ) -> Result<Operation, ExchangeError> {
        let step = self.shared.operations.fetch_add(1, Ordering::Relaxed);
        let at = Place { layer: None, phase: header.phase, step };
        Operation::begin(self, Header { step, ..header }, at, settings, Duration::ZERO)
    }

    /// Gathers a payload in an operation of the group itself. Returns the results of `read` in rank
    /// order.
    pub(crate) async fn gather<T>(
        &self,
        header: Header,
        payload: Payload,
        read: impl Fn(usize, Payload) -> Result<T, String>,
    ) -> Result<Vec<T>, Error> {
        let operation = self.begin(header, Settings::None)?;
        let read = |(rank, payload)| {
            read(rank, payload).map_err(|message| operation.refuse(rank, message))
        };
        let gathered = operation.gather(payload).await;
        let found =
            gathered.and_then(|payloads| payloads.into_iter().enumerate().map(read).collect());
        let found = found.map_err(Error::from);
        operation.end(&found);
        found
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.open {
            self.fail_dropped("its call was dropped before it ended");
        }
    }
}
