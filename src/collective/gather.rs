//! The exchanges of a process group. The exchanges of a call, one or many, are a list in one
//! message.

use std::borrow::Cow;

use futures::future::{BoxFuture, FutureExt};

use super::ProcessGroup;
use super::frame::{Frame, FrameError, Header, Payload, Phase};
use super::list::{check_length, pack, unpack};
use super::merged::{Head, Joined, Merged};
use super::operation::{Operation, Sent};
use super::peers::{Again, Dissent, Judgement, Kind, add_head, judge};
use super::reduce::ReduceOp;
use crate::checksum::Manifest;
use crate::error::ExchangeError;
use crate::trace::{self, Span};

/// This rank's part of an exchange.
pub(crate) struct Said {
    pub header: Header,
    pub payload: Payload,
    /// Source of the checksum in the field `state` of the header.
    pub state: Option<Manifest>,
}

/// The result of one exchange of a list.
pub(crate) struct Answer {
    heads: Vec<Head>,
    /// One payload from every rank, in rank order, or one payload, the result of an all-reduce.
    pub payloads: Vec<Payload>,
}

/// An error of a list of exchanges.
#[derive(Debug)]
pub(crate) struct ListError {
    /// The number of the exchange, if the error concerns one exchange.
    pub index: Option<usize>,
    pub error: ExchangeError,
}

impl ListError {
    /// An error of the list as a whole.
    pub fn of_all(error: ExchangeError) -> Self {
        Self { index: None, error }
    }

    /// The same error, after the group has stored it for good.
    pub fn poison(self, group: &ProcessGroup) -> Self {
        Self { error: group.poison(self.error), ..self }
    }

    /// Adds the number of its exchange to an error.
    pub fn of(index: usize) -> impl Fn(ExchangeError) -> Self {
        move |error| Self { index: Some(index), error }
    }
}

impl Operation {
    /// Sends one message for these operations of one group and gets the messages of all ranks. The
    /// message leaves when the turn of the first operation comes. `say` is called then, for the
    /// content of each exchange. With a reduce operation the payloads are nodes, and a transport
    /// that supports it merges them by an all-reduce.
    ///
    /// Where checksums of settings or states differ, ranks gather the sources of the checksums. The
    /// error names the first difference.
    pub async fn exchange(
        operations: &[&Self],
        say: impl FnOnce() -> Vec<Said>,
        op: Option<ReduceOp>,
    ) -> Result<Vec<Answer>, ListError> {
        let Some(&first) = operations.first() else { return Ok(Vec::new()) };
        let group = &first.group;
        let listed = operations.len() as u64;
        let span = Self::span(operations, first.header.phase);
        first.come().await.map_err(ListError::of_all)?;
        first.goes_on();
        let mut states = Vec::with_capacity(operations.len());
        let frames = say().into_iter().map(|Said { header, payload, state }| {
            states.push(state);
            Frame { header: Header { listed, ..header }, payload }
        });
        let answers = match op {
            Some(op) if group.transport.supports_all_reduce() => {
                span.around(first.all_reduce(frames, op, &span)).await
            }
            _ => span.around(Self::gather_frames(operations, frames, &span)).await,
        };
        let answers = answers.map_err(|failure| failure.poison(group))?;
        if let Some(answer) = answers
            .first()
            .filter(|answer| answer.heads.iter().any(|head| head.header.listed != listed))
        {
            // Ranks with lists of different lengths are at different places.
            first.judge(answer, Again::default()).map_err(ListError::of_all)?;
        }
        Self::look_into(operations, &answers, &states).await?;
        Ok(answers)
    }

    /// The span of an exchange of these operations.
    pub(super) fn span(operations: &[&Self], phase: Phase) -> Span {
        let group = &operations[0].group;
        let layers = operations.iter().map(|of| (of.header.name.as_str(), of.header.layer));
        trace::exchange(phase, layers, group.world_rank(group.rank()))
    }

    /// Names the first setting or part of a state that differs, if the first difference of all
    /// headers is a checksum.
    async fn look_into<'s>(
        operations: &[&Self],
        answers: &[Answer],
        states: &'s [Option<Manifest>],
    ) -> Result<(), ListError> {
        let may = Again { states: true, ranks: true };
        let differences = answers.iter().map(|answer| judge(&answer.heads, may).difference);
        let Some((index, kind)) =
            differences.enumerate().find_map(|(index, difference)| Some((index, difference?.0)))
        else {
            return Ok(());
        };
        let lists = match kind {
            Kind::Place => return Ok(()),
            Kind::Settings => operations.iter().map(|of| of.settings.list()).collect(),
            Kind::State => {
                let list = |state: &'s Option<Manifest>| state.as_ref().map_or("", |of| &*of.text);
                states.iter().map(|state| Cow::Borrowed(list(state))).collect()
            }
        };
        // Boxed, because it is rare and would enlarge the future of every exchange.
        Box::pin(Self::compare(operations, index, kind, lists)).await
    }

    /// The payloads of all ranks in this operation, in rank order. Their headers agree.
    ///
    /// Boxed, and so compiled once, not by each application that awaits it.
    pub fn gather(&self, payload: Payload) -> BoxFuture<'_, Result<Vec<Payload>, ExchangeError>> {
        async move {
            let say = || vec![Said { header: self.header.clone(), payload, state: None }];
            match Self::gather_list(&[self], say).await {
                Ok(list) => Ok(list.into_iter().flatten().collect()),
                Err(failure) => Err(failure.error),
            }
        }
        .boxed()
    }

    /// [`exchange`](Self::exchange) without a reduce operation. All headers agree. Returns
    /// `[operation][rank]`.
    pub async fn gather_list(
        operations: &[&Self],
        say: impl FnOnce() -> Vec<Said>,
    ) -> Result<Vec<Vec<Payload>>, ListError> {
        let answers = Self::exchange(operations, say, None).await?;
        let agreed =
            answers.into_iter().zip(operations).enumerate().map(|(index, (answer, operation))| {
                operation.judge(&answer, Again::default()).map_err(ListError::of(index))?;
                Ok(answer.payloads)
            });
        agreed.collect()
    }

    /// Refuses headers that differ. If they differ only in fields that `may` allows, returns the
    /// fields to announce once more.
    pub fn judge(&self, answer: &Answer, may: Again) -> Result<Again, ExchangeError> {
        let Judgement { again, difference } = judge(&answer.heads, may);
        let Some((kind, what, dissent)) = difference else { return Ok(again) };
        if kind != Kind::Place {
            return Err(self.differs(kind, what, dissent));
        }
        let Dissent { rank, found, expected, other, agreeing } = dissent.of_world(&self.group);
        let at = self.at.to_string();
        let found = found.into();
        let expected = expected.into();
        let error = ExchangeError::Mismatch { at, what, rank, found, expected, other, agreeing };
        Err(self.group.poison(error))
    }

    pub(super) async fn gather_frames(
        operations: &[&Self],
        frames: impl Iterator<Item = Frame>,
        span: &Span,
    ) -> Result<Vec<Answer>, ListError> {
        let first = operations[0];
        let group = &operations[0].group;
        let message = pack(frames);
        span.sends(message.len());
        let gathered = Sent::new(first, group.transport.all_gather(message, group.deadline()));
        let messages = gathered.await.map_err(ListError::of_all)?;
        let empty = || Answer { heads: Vec::new(), payloads: Vec::with_capacity(messages.len()) };
        let mut gathered: Vec<Answer> = operations.iter().map(|_| empty()).collect();
        for (rank, message) in messages.iter().enumerate() {
            let unusable =
                |error: FrameError| ListError::of_all(first.unusable(rank, error.to_string()));
            let list = unpack("frame", message).map_err(unusable)?;
            for (index, (bytes, operation)) in list.iter().zip(operations).enumerate() {
                let frame = operation.decode(rank, bytes).map_err(ListError::of(index))?;
                check_length(list.len(), frame.header.listed).map_err(unusable)?;
                let Frame { header, payload } = frame;
                add_head(&mut gathered[index].heads, Head { header, ranks: 1 });
                gathered[index].payloads.push(payload);
            }
        }
        Ok(gathered)
    }

    /// All-reduce of the frames of this operation and those behind it.
    async fn all_reduce(
        &self,
        frames: impl Iterator<Item = Frame>,
        op: ReduceOp,
        span: &Span,
    ) -> Result<Vec<Answer>, ListError> {
        let message = Merged::of(frames).encode();
        span.sends(message.len());
        let reduced = self.group.transport.all_reduce(message, op, self.group.deadline());
        let bytes = Sent::new(self, reduced).await.map_err(ListError::of_all)?;
        // Every rank has the same bytes; rank 0 made them.
        let unusable = |rank: usize, message| ListError::of_all(self.unusable(rank, message));
        match Merged::decode(&bytes).map_err(|error| unusable(0, error.to_string()))? {
            Merged::Failed { rank, message } => Err(unusable(rank as usize, message)),
            Merged::List(list) => {
                let answer = |joined: Joined| Answer {
                    heads: joined.heads,
                    payloads: vec![Payload::Nodes(joined.nodes)],
                };
                Ok(list.into_iter().map(answer).collect())
            }
        }
    }

    fn decode(&self, rank: usize, message: &[u8]) -> Result<Frame, ExchangeError> {
        let frame =
            Frame::decode(message).map_err(|error| self.unusable(rank, error.to_string()))?;
        if frame.header.rank != rank as u64 {
            return Err(
                self.unusable(rank, format!("it says that it is of rank {}", frame.header.rank))
            );
        }
        if let Payload::Abort(reason) = frame.payload {
            let rank = self.group.world_rank(rank);
            return Err(ExchangeError::Aborted { at: self.at.to_string(), rank, reason });
        }
        Ok(frame)
    }
}
