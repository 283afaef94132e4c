//! The exchanges of several layers as one message.

use super::exchange::Call;
use super::{Mergeable, merge_ranks};
use crate::collective::{Frame, Payload};
use crate::error::ExchangeError;

impl Call<'_> {
    /// [`merge`](Self::merge) for several calls of one process group: `locals[call][rank][channel]` with a state for each, to
    /// `[call][channel]`. `None` where only some ranks tell a state, unless `all_tell` says that all should have. An error
    /// comes with the number of its call, if it is one's.
    pub async fn merge_many<T: Mergeable>(
        calls: &[&Call<'_>],
        locals: &[&[Vec<T>]],
        states: &[Option<u64>],
        all_tell: bool,
    ) -> Result<Option<Vec<Vec<T>>>, (Option<usize>, ExchangeError)> {
        let Some(first) = calls.first() else { return Ok(Some(Vec::new())) };
        let group = first.exchange.group();
        if group.world_size() == 1 {
            return Ok(Some(locals.iter().map(|local| merge_ranks(local)).collect()));
        }
        let frame = |((call, local), state): ((&&Call<'_>, &&[Vec<T>]), &Option<u64>)| Frame {
            header: call.header_telling(*state),
            payload: Payload::Nodes(call.own_nodes(local)),
        };
        let frames = calls.iter().zip(locals).zip(states).map(frame).collect();
        let each: Vec<&str> = calls.iter().map(|call| call.at.as_str()).collect();
        let at = format!("{} and {} more", first.at, calls.len() - 1);
        let gathered = group.gather_many(&first.turn, frames, &at, &each, all_tell).await?;
        let Some(gathered) = gathered else { return Ok(None) };
        // The exchange was that of all.
        calls.iter().for_each(|call| call.turn.pass());
        let merged = calls.iter().zip(gathered).zip(states).enumerate().map(|(index, ((call, frames), state))| {
            call.exchange.has_announced(*state);
            let payloads = frames.into_iter().map(|frame| frame.payload).collect();
            call.merge_gathered(payloads).map_err(|error| (Some(index), error))
        });
        merged.collect::<Result<_, _>>().map(Some)
    }
}
