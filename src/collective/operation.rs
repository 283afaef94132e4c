//! An operation of all ranks, from its first check to its end: a layer's call, or one of the
//! process group itself.
//!
//! It holds the rank's turn, and the peers learn when it fails or is dropped.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ProcessGroup;
use super::frame::{Header, Payload};
use super::turns::Turn;
use crate::error::{Error, ExchangeError};

/// An operation that communicates. Dropped before its end, it notifies the peers that this rank has
/// failed.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(super) group: ProcessGroup,
    pub(super) header: Header,
    pub(super) at: String,
    pub(super) turn: Turn,
    open: bool,
}

impl Operation {
    /// Begins an operation: from now on the peers learn when it fails. Operations exchange in the
    /// order in which they begin. `patience` is how long its devices may take before its exchange;
    /// `at` says where it is, for errors.
    pub fn begin(
        group: &ProcessGroup,
        header: Header,
        at: String,
        patience: Duration,
    ) -> Result<Self, ExchangeError> {
        group.check(&at)?;
        let turn = group.turn(&at, patience);
        Ok(Self { group: group.clone(), header, at, turn, open: true })
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

    /// The message of a rank of the group cannot be used.
    pub fn refuse(&self, rank: usize, message: String) -> ExchangeError {
        self.group.poison(self.unusable(rank, message))
    }

    pub(super) fn unusable(&self, rank: usize, message: String) -> ExchangeError {
        ExchangeError::Frame { at: self.at.clone(), rank: self.group.world_rank(rank), message }
    }

    /// Ends the operation. The peers are notified of a failure, unless it is one that every rank
    /// has found alike.
    pub fn end<T>(mut self, result: &Result<T, Error>) {
        self.open = false;
        match result {
            Ok(_) | Err(Error::Batch(_) | Error::Group(_)) => {}
            Err(error) => self.group.fail(self.header.clone(), &self.at, &error.to_string()),
        }
    }
}

impl ProcessGroup {
    /// Begins the next operation of the group itself, which belongs to no layer and waits for no
    /// device.
    pub(crate) fn begin(&self, header: Header) -> Result<Operation, ExchangeError> {
        let step = self.shared.operations.fetch_add(1, Ordering::Relaxed);
        let at = format!("{}, exchange {step} of the group", header.phase);
        Operation::begin(self, Header { step, ..header }, at, Duration::ZERO)
    }

    /// What `read` finds in every rank's payload, in rank order, in an operation of the group
    /// itself.
    pub(crate) async fn gather<T>(
        &self,
        header: Header,
        payload: Payload,
        read: impl Fn(usize, Payload) -> Result<T, String>,
    ) -> Result<Vec<T>, Error> {
        let operation = self.begin(header)?;
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
            let panicked = std::thread::panicking();
            let reason =
                if panicked { "it panicked" } else { "its call was dropped before it ended" };
            self.group.fail(self.header.clone(), &self.at, reason);
        }
    }
}
