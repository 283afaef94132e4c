//! What several ranks have said, merged into one message: their headers, each different one once, and the nodes of the
//! tree that cover them. Merging numbers is the coordinator's.
//!
//! The layout is in `docs/PROTOCOL.md`. As of frames, decoding takes any bytes.

use super::frame::reader::Reader;
use super::frame::{Frame, FrameError, Header, NodePayload, Payload};
use super::merge::Part;

/// A header, and how many ranks have it: the first is the one it names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub header: Header,
    pub ranks: u64,
}

impl Head {
    /// Whether both are at the same place, whoever speaks.
    pub fn agrees(&self, other: &Header) -> bool {
        self.header == Header { rank: self.header.rank, ..other.clone() }
    }
}

/// What some consecutive ranks have said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Merged {
    /// Headers in the order of the first rank of each, and the nodes; none where headers differ, which ends the exchange.
    Nodes {
        /// The headers.
        heads: Vec<Head>,
        /// The nodes from left to right.
        nodes: Vec<NodePayload>,
    },
    /// The message of a rank could not be used.
    Failed {
        /// Whose.
        rank: u64,
        /// What is wrong with it.
        message: String,
    },
}

/// Merges nodes of consecutive ranks; an error where the right ones do not go on from the left ones.
pub(crate) type Join = fn(Vec<NodePayload>, Vec<NodePayload>) -> Result<Vec<NodePayload>, String>;

const NODES: u8 = 0;
const FAILED: u8 = 1;

impl Merged {
    /// What one rank says.
    pub fn of(header: Header, nodes: Vec<NodePayload>) -> Self {
        Self::Nodes { heads: vec![Head { header, ranks: 1 }], nodes }
    }

    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Failed { rank, message } => [&[FAILED], rank.to_le_bytes().as_slice(), message.as_bytes()].concat(),
            Self::Nodes { heads, nodes } => {
                let mut out = vec![NODES];
                let mut payload = Payload::Nodes(nodes);
                for Head { header, ranks } in heads {
                    let frame = Frame { header, payload }.encode();
                    out.extend(ranks.to_le_bytes());
                    out.extend((frame.len() as u64).to_le_bytes());
                    out.extend(frame);
                    // The nodes travel with the first.
                    payload = Payload::Bytes(Vec::new());
                }
                out
            }
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader { rest: bytes };
        match reader.array("kind of a merged message")? {
            [NODES] => {}
            [FAILED] => {
                let rank = u64::from_le_bytes(reader.array("rank")?);
                return Ok(Self::Failed { rank, message: String::from_utf8_lossy(reader.rest).into_owned() });
            }
            [kind] => {
                let (what, found, allowed) = ("kind of a merged message", kind.into(), "0 or 1");
                return Err(FrameError::Field { what, found, allowed });
            }
        }
        let (mut heads, mut nodes) = (Vec::new(), Vec::new());
        while heads.is_empty() || !reader.rest.is_empty() {
            let ranks = u64::from_le_bytes(reader.array("ranks of a header")?);
            let len = u64::from_le_bytes(reader.array("length of a frame")?);
            let Frame { header, payload } = Frame::decode(reader.take("frame", len)?)?;
            match payload {
                Payload::Nodes(all) if heads.is_empty() => nodes = all,
                Payload::Bytes(none) if !heads.is_empty() && none.is_empty() => {}
                _ => {
                    let (found, allowed) = (heads.len() as u64, "nodes with the first header, nothing with others");
                    return Err(FrameError::Field { what: "payload of a header", found, allowed });
                }
            }
            heads.push(Head { header, ranks });
        }
        Ok(Self::Nodes { heads, nodes })
    }

    /// What a part says; of what is no message of this kind, that its first rank's cannot be used.
    fn of_part(part: Part<'_>) -> Self {
        let failed = |message| Self::Failed { rank: part.rank as u64, message };
        match Self::decode(part.bytes) {
            Ok(Self::Nodes { heads, nodes }) => match heads.first().map(|head| head.header.rank) {
                Some(rank) if rank != part.rank as u64 => failed(format!("it says that it is of rank {rank}")),
                _ => Self::Nodes { heads, nodes },
            },
            Ok(other) => other,
            Err(error) => failed(error.to_string()),
        }
    }

    /// What both sides say together.
    pub fn join(left: Part<'_>, right: Part<'_>, join: Join) -> Self {
        let (mut heads, left) = match Self::of_part(left) {
            Self::Nodes { heads, nodes } => (heads, nodes),
            failed => return failed,
        };
        let right_rank = right.rank as u64;
        let (others, right) = match Self::of_part(right) {
            Self::Nodes { heads, nodes } => (heads, nodes),
            failed => return failed,
        };
        for other in others {
            match heads.iter_mut().find(|head| head.agrees(&other.header)) {
                Some(head) => head.ranks = head.ranks.saturating_add(other.ranks),
                None => heads.push(other),
            }
        }
        if heads.len() > 1 {
            return Self::Nodes { heads, nodes: Vec::new() };
        }
        match join(left, right) {
            Ok(nodes) => Self::Nodes { heads, nodes },
            Err(message) => Self::Failed { rank: right_rank, message },
        }
    }
}
