//! The exchanges of a process group: every rank's frame, or the nodes that all have become, once all are at the same place.
//!
//! Where only some ranks tell the checksum of their state, an exchange that may compare states has no result and keeps its
//! turn: the coordinator makes it again with all of them.

use super::ProcessGroup;
use super::frame::{Frame, Header, NodePayload, Payload};
use super::merge::Merge;
use super::merged::{Head, Merged};
use super::peers::{check_heads, heads, tell_in_part};
use super::turns::Turn;
use crate::error::ExchangeError;

impl ProcessGroup {
    /// Sends a payload when it is the call's turn and gets every rank's frame, in rank order, all of the same header but for
    /// the rank; `at` says where, for errors.
    pub(crate) async fn gather(
        &self,
        turn: &Turn,
        header: Header,
        payload: Payload,
        at: &str,
    ) -> Result<Vec<Frame>, ExchangeError> {
        let frames = self.gather_frames(turn, header, payload, at).await?;
        self.conclude(turn, &heads(&frames), at)?;
        Ok(frames)
    }

    /// [`gather`](Self::gather) of an exchange that may compare states; `None` where only some ranks tell theirs.
    pub(crate) async fn gather_telling(
        &self,
        turn: &Turn,
        header: Header,
        payload: Payload,
        at: &str,
    ) -> Result<Option<Vec<Frame>>, ExchangeError> {
        let frames = self.gather_frames(turn, header, payload, at).await?;
        let has_result = self.conclude_telling(turn, &heads(&frames), at)?;
        Ok(has_result.then_some(frames))
    }

    /// Every rank's frame, whatever its header says.
    pub(super) async fn gather_frames(
        &self,
        turn: &Turn,
        header: Header,
        payload: Payload,
        at: &str,
    ) -> Result<Vec<Frame>, ExchangeError> {
        self.come(turn, &header, at).await?;
        let message = Frame { header, payload }.encode();
        let gathered = self.transport.all_gather(message, self.deadline()).await;
        let frames = gathered.map_err(|error| self.named(error, at)).and_then(|messages| {
            let frames = messages.iter().enumerate().map(|(rank, message)| self.decode(rank, message, at));
            frames.collect()
        });
        frames.map_err(|error| self.poison(error))
    }

    /// Whether statistics merge on their way, by [`merge`](Self::merge), instead of being gathered.
    pub(crate) fn merges_on_the_way(&self) -> bool {
        self.transport.merges_on_the_way()
    }

    /// Gives the nodes that this rank holds when it is the call's turn and gets those that cover all ranks, merged by `law`,
    /// of the same header; `at` says where, for errors.
    pub(crate) async fn merge(
        &self,
        turn: &Turn,
        header: Header,
        nodes: Vec<NodePayload>,
        law: Merge,
        at: &str,
    ) -> Result<Vec<NodePayload>, ExchangeError> {
        let (heads, nodes) = self.merge_nodes(turn, header, nodes, law, at).await?;
        self.conclude(turn, &heads, at)?;
        Ok(nodes)
    }

    /// [`merge`](Self::merge) of an exchange that may compare states; `None` where only some ranks tell theirs.
    pub(crate) async fn merge_telling(
        &self,
        turn: &Turn,
        header: Header,
        nodes: Vec<NodePayload>,
        law: Merge,
        at: &str,
    ) -> Result<Option<Vec<NodePayload>>, ExchangeError> {
        let (heads, nodes) = self.merge_nodes(turn, header, nodes, law, at).await?;
        let has_result = self.conclude_telling(turn, &heads, at)?;
        Ok(has_result.then_some(nodes))
    }

    /// The different headers of all ranks, and what their nodes have become.
    async fn merge_nodes(
        &self,
        turn: &Turn,
        header: Header,
        nodes: Vec<NodePayload>,
        law: Merge,
        at: &str,
    ) -> Result<(Vec<Head>, Vec<NodePayload>), ExchangeError> {
        self.come(turn, &header, at).await?;
        let message = Merged::of(header, nodes).encode();
        let merged = self.transport.all_merge(message, law, self.deadline()).await;
        let merged = merged.map_err(|error| self.named(error, at)).and_then(|bytes| {
            let unusable = |rank: usize, message| {
                let rank = self.world_rank(rank);
                ExchangeError::Frame { at: at.to_owned(), rank, message }
            };
            // Every rank has the same bytes; rank 0 made them.
            match Merged::decode(&bytes).map_err(|error| unusable(0, error.to_string()))? {
                Merged::Failed { rank, message } => Err(unusable(rank as usize, message)),
                Merged::Nodes { heads, nodes } => Ok((heads, nodes)),
            }
        });
        merged.map_err(|error| self.poison(error))
    }

    /// Ends the turn of an exchange whose headers agree.
    fn conclude(&self, turn: &Turn, heads: &[Head], at: &str) -> Result<(), ExchangeError> {
        self.agree(heads, at)?;
        turn.pass();
        Ok(())
    }

    /// [`conclude`](Self::conclude), or keeps the turn and returns false where only some ranks tell their state.
    fn conclude_telling(&self, turn: &Turn, heads: &[Head], at: &str) -> Result<bool, ExchangeError> {
        if tell_in_part(heads) {
            return Ok(false);
        }
        self.conclude(turn, heads, at)?;
        Ok(true)
    }

    /// Refuses headers that differ.
    pub(super) fn agree(&self, heads: &[Head], at: &str) -> Result<(), ExchangeError> {
        check_heads(heads, at, |rank| self.world_rank(rank)).map_err(|error| self.poison(error))
    }

    pub(super) fn decode(&self, rank: usize, message: &[u8], at: &str) -> Result<Frame, ExchangeError> {
        let broken = |message: String| ExchangeError::Frame { at: at.to_owned(), rank: self.world_rank(rank), message };
        let frame = Frame::decode(message).map_err(|error| broken(error.to_string()))?;
        if frame.header.rank != rank as u64 {
            return Err(broken(format!("it says that it is of rank {}", frame.header.rank)));
        }
        if let Payload::Abort(reason) = frame.payload {
            return Err(ExchangeError::Aborted { at: at.to_owned(), rank: self.world_rank(rank), reason });
        }
        Ok(frame)
    }
}
