//! Several exchanges as one message: each layer's frame as it would be sent by itself, within the bytes of one.

use super::ProcessGroup;
use super::frame::{Frame, Header, Payload, Phase};
use super::peers::{heads, tell_in_part};
use super::turns::Turn;
use crate::error::ExchangeError;

/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 8;

impl ProcessGroup {
    /// Sends the frames of several exchanges as one message and gets those of every rank, `[exchange][rank]`, each
    /// checked as by [`gather`](Self::gather); `at` says where the message is, and `each` where each exchange is. `None` where
    /// only some ranks tell a state, unless `all_tell` says that all should have. An error comes with the number of its
    /// exchange, if it is one's.
    pub(crate) async fn gather_many(
        &self,
        turn: &Turn,
        frames: Vec<Frame>,
        at: &str,
        each: &[&str],
        all_tell: bool,
    ) -> Result<Option<Vec<Vec<Frame>>>, (Option<usize>, ExchangeError)> {
        let Some(first) = frames.first().map(|frame| frame.header.clone()) else { return Ok(Some(Vec::new())) };
        // What no exchange has to itself is compared before they are told apart.
        let channels = frames.iter().map(|frame| frame.header.channels).fold(0, u64::saturating_add);
        let header = Header { phase: Phase::ForwardMany, channels, config: 0, state: 0, ..first };
        let gathered = self.gather_frames(turn, header, Payload::Bytes(pack(&frames)), at).await;
        let gathered = gathered.map_err(|error| (None, error))?;
        self.agree(&heads(&gathered), at).map_err(|error| (None, error))?;
        let mut exchanges: Vec<Vec<Frame>> = each.iter().map(|_| Vec::with_capacity(gathered.len())).collect();
        for (rank, frame) in gathered.iter().enumerate() {
            let refuse = |message: String| {
                let (at, rank) = (at.to_owned(), self.world_rank(rank));
                (None, self.poison(ExchangeError::Frame { at, rank, message }))
            };
            let Payload::Bytes(bytes) = &frame.payload else {
                return Err(refuse("it carries no frames".to_owned()));
            };
            let messages = unpack(bytes).map_err(refuse)?;
            if messages.len() != each.len() {
                return Err(refuse(format!("it carries {} frame(s), expected {}", messages.len(), each.len())));
            }
            for (index, message) in messages.into_iter().enumerate() {
                let frame = self.decode(rank, message, each[index]);
                exchanges[index].push(frame.map_err(|error| (Some(index), self.poison(error)))?);
            }
        }
        let mut again = false;
        for (index, frames) in exchanges.iter().enumerate() {
            let heads = heads(frames);
            if !all_tell && tell_in_part(&heads) {
                again = true;
                continue;
            }
            self.agree(&heads, each[index]).map_err(|error| (Some(index), error))?;
        }
        if again {
            return Ok(None);
        }
        turn.pass();
        Ok(Some(exchanges))
    }
}

fn pack(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        let frame = frame.encode();
        bytes.extend((frame.len() as u64).to_le_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn unpack(mut bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes
            .split_first_chunk::<LENGTH_BYTES>()
            .ok_or_else(|| "it ends within the length of a frame".to_owned())?;
        let length = u64::from_le_bytes(*length);
        if length > rest.len() as u64 {
            return Err(format!("a frame of {length} bytes, with {} left", rest.len()));
        }
        let (message, rest) = rest.split_at(length as usize);
        messages.push(message);
        bytes = rest;
    }
    Ok(messages)
}
