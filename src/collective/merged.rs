//! The merged message of several ranks. For each exchange of their lists it has every different
//! header once, and the nodes of the tree that cover the ranks. The module `exchange` merges the
//! values.
//!
//! The layout is in `docs/PROTOCOL.md`. Decoding takes any bytes, as that of frames does.

use std::mem::replace;

use super::frame::reader::Reader;
use super::frame::{Frame, FrameError, Header, NodePayload, Payload};
use super::list::{check_length, put_item, unpack};
use super::peers::{add_head, agree};
use super::reduce::Part;

/// A header, and the number of ranks that have it. The header names the first of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub header: Header,
    pub ranks: u64,
}

impl Head {
    /// Whether both agree in all but the sender.
    pub fn is_of(&self, other: &Header) -> bool {
        // All fields by name, so that none can be forgotten.
        let Header {
            group,
            rank: _,
            phase,
            layer,
            name,
            step,
            subject,
            channels,
            config,
            state,
            ranks,
            listed,
        } = other;
        let own = &self.header;
        own.group == *group
            && own.phase == *phase
            && own.layer == *layer
            && own.step == *step
            && own.subject == *subject
            && own.channels == *channels
            && own.config == *config
            && own.state == *state
            && own.ranks == *ranks
            && own.listed == *listed
            && own.name == *name
    }
}

/// The merged messages of some consecutive ranks in one exchange.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Joined {
    /// Headers in the order of the first rank of each.
    pub heads: Vec<Head>,
    /// The nodes from left to right. Empty if headers do not agree.
    pub nodes: Vec<NodePayload>,
}

/// The merged messages of some consecutive ranks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Merged {
    /// A list of exchanges. If lists of ranks have different lengths, it has the shortest, and
    /// their headers do not agree.
    List(Vec<Joined>),
    /// The message of a rank could not be used.
    Failed {
        /// That rank.
        rank: u64,
        /// The error in its message.
        message: String,
    },
}

/// Merges nodes of consecutive ranks. An error if the right nodes do not start where the left ones
/// end, or have other channels.
pub(crate) type Join = fn(Vec<NodePayload>, Vec<NodePayload>) -> Result<Vec<NodePayload>, String>;

const LIST: u8 = 0;
const FAILED: u8 = 1;

impl Merged {
    /// The message of one rank.
    pub fn of(frames: impl Iterator<Item = Frame>) -> Self {
        let joined = |Frame { header, payload }| {
            let nodes = if let Payload::Nodes(nodes) = payload { nodes } else { Vec::new() };
            Joined { heads: vec![Head { header, ranks: 1 }], nodes }
        };
        Self::List(frames.map(joined).collect())
    }

    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Failed { rank, message } => {
                [&[FAILED], rank.to_le_bytes().as_slice(), message.as_bytes()].concat()
            }
            Self::List(list) => {
                let mut out = vec![LIST];
                list.into_iter().for_each(|joined| put_item(&mut out, |out| joined.put(out)));
                out
            }
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let what = "kind of a merged message";
        let mut reader = Reader { rest: bytes };
        match reader.array(what)? {
            [LIST] => {
                let list = unpack("exchange of a merged message", reader.rest)?;
                let list = list.into_iter().map(Joined::decode).collect::<Result<Vec<_>, _>>()?;
                // If ranks list different numbers, the shortest list remains.
                let listed = list[0].heads.iter().map(|head| head.header.listed).min();
                check_length(list.len(), listed.unwrap_or(0))?;
                Ok(Self::List(list))
            }
            [FAILED] => {
                let rank = u64::from_le_bytes(reader.array("rank")?);
                Ok(Self::Failed {
                    rank,
                    message: String::from_utf8_lossy(reader.rest).into_owned(),
                })
            }
            [kind] => Err(FrameError::Field { what, found: kind.into(), allowed: "0 or 1" }),
        }
    }

    /// Reads a part. Unusable bytes become a failure of the part's first rank.
    fn of_part(part: Part<'_>) -> Self {
        let failed = |message| Self::Failed { rank: part.rank as u64, message };
        let merged = match Self::decode(part.bytes) {
            Ok(merged) => merged,
            Err(error) => return failed(error.to_string()),
        };
        let list = if let Self::List(list) = &merged { list.as_slice() } else { &[] };
        let first_ranks =
            list.iter().filter_map(|joined| joined.heads.first()).map(|head| head.header.rank);
        match first_ranks.into_iter().find(|&rank| rank != part.rank as u64) {
            Some(rank) => failed(format!("it says that it is of rank {rank}")),
            None => merged,
        }
    }

    /// Merges both parts.
    pub fn join(left: Part<'_>, right: Part<'_>, join: Join) -> Self {
        let rank = right.rank as u64;
        let (lefts, rights) = match (Self::of_part(left), Self::of_part(right)) {
            (Self::List(lefts), Self::List(rights)) => (lefts, rights),
            (Self::List(_), failed) | (failed, _) => return failed,
        };
        let joined = lefts.into_iter().zip(rights).map(|(left, right)| left.join(right, join));
        joined
            .collect::<Result<_, _>>()
            .map_or_else(|message| Self::Failed { rank, message }, Self::List)
    }
}

impl Joined {
    fn put(self, out: &mut Vec<u8>) {
        let mut payload = Payload::Nodes(self.nodes);
        for Head { header, ranks } in self.heads {
            // The nodes travel with the first.
            let payload = replace(&mut payload, Payload::Bytes(Vec::new()));
            out.extend(ranks.to_le_bytes());
            put_item(out, |out| Frame { header, payload }.put(out));
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader { rest: bytes };
        let mut heads = Vec::new();
        let mut nodes = Vec::new();
        while heads.is_empty() || !reader.rest.is_empty() {
            let ranks = u64::from_le_bytes(reader.array("ranks of a header")?);
            let len = u64::from_le_bytes(reader.array("length of a frame")?);
            let Frame { header, payload } = Frame::decode(reader.take("frame", len)?)?;
            match payload {
                Payload::Nodes(all) if heads.is_empty() => nodes = all,
                Payload::Bytes(none) if !heads.is_empty() && none.is_empty() => {}
                _ => {
                    let found = heads.len() as u64;
                    let allowed = "nodes with the first header, nothing with others";
                    return Err(FrameError::Field { what: "payload of a header", found, allowed });
                }
            }
            heads.push(Head { header, ranks });
        }
        Ok(Self { heads, nodes })
    }

    /// Merges both parts. An error if their nodes do not merge.
    fn join(self, right: Self, join: Join) -> Result<Self, String> {
        let mut heads = self.heads;
        right.heads.into_iter().for_each(|other| add_head(&mut heads, other));
        // Values of ranks that are at different places do not merge.
        let nodes = if agree(&heads) { join(self.nodes, right.nodes)? } else { Vec::new() };
        Ok(Self { heads, nodes })
    }
}
