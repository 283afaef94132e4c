//! The message that ranks exchange. It is self-describing and little-endian, and every field is
//! checked before its first use.
//!
//! The layout is in `docs/PROTOCOL.md`. Decoding takes any bytes: it never panics, and allocates no
//! more than the bytes that are there.

mod phase;
pub(super) mod reader;
mod values;

pub use phase::Phase;
use reader::{NODE_HEADER_BYTES, Reader};
pub use values::Values;

/// First bytes of every frame.
const MAGIC: [u8; 4] = *b"SYBN";
/// Version of the layout.
const VERSION: u16 = 2;
/// In the place of a state's checksum where it is not announced.
pub(crate) const UNANNOUNCED: u64 = 0;
/// The subject of a backward exchange that names none. It agrees with every subject.
pub(crate) const ANY_SUBJECT: u64 = u64::MAX;

/// Fields that must agree between the ranks of an exchange, and the sender's rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Identity of the process group.
    pub group: u64,
    /// The sender's rank in the group.
    pub rank: u64,
    /// Purpose of the exchange.
    pub phase: Phase,
    /// Number of the layer: how many were made in the group before it.
    pub layer: u64,
    /// Name of the layer, for messages; may be empty.
    pub name: String,
    /// Exchanges of the layer before this one, or of the group itself.
    pub step: u64,
    /// In backward, the exchange of its forward. In a broadcast, the sending rank. Otherwise 0.
    pub subject: u64,
    /// Channels (C), or the number of a program's values.
    pub channels: u64,
    /// Checksum of the layer's configuration. For values to be summed, checksum of the lengths of
    /// their slices.
    pub config: u64,
    /// Checksum of parameters and running statistics where it is announced, as in the first
    /// exchange. Otherwise 0.
    pub state: u64,
    /// Devices that the sender holds for the layer, until all ranks know each other's number.
    /// Afterwards 0.
    pub ranks: u64,
    /// Exchanges that share the message.
    pub listed: u64,
}

/// The merged values of one node of the tree over ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePayload {
    /// Height of the node above the leaves.
    pub level: u32,
    /// Its position among the nodes of its level.
    pub index: u64,
    /// Values per channel under it.
    pub count: u64,
    /// Two values per channel, or a program's values in pairs.
    pub values: Values,
}

/// Payload of a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Values of the nodes that the sender holds.
    Nodes(Vec<NodePayload>),
    /// Bytes whose meaning the phase defines.
    Bytes(Vec<u8>),
    /// The sender has failed, with its reason.
    Abort(String),
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Fields that must agree, and the sender's rank.
    pub header: Header,
    /// The values, bytes or reason.
    pub payload: Payload,
}

/// Bytes that are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first bytes are not those of a frame.
    #[error("the first bytes are {found:?}, expected {MAGIC:?}: not a message of this protocol")]
    Magic {
        /// The bytes found, at most four.
        found: Vec<u8>,
    },
    /// The frame is of another version.
    #[error(
        "protocol version {found}, expected {VERSION}: all ranks need the same version of this \
         crate"
    )]
    Version {
        /// The version found.
        found: u16,
    },
    /// The frame is too short or too long.
    #[error("{what}: {found} byte(s) left, expected {expected}")]
    Length {
        /// The part that was being read.
        what: &'static str,
        /// Bytes left.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// A field has a value that is not allowed.
    #[error("{what} is {found}, allowed: {allowed}")]
    Field {
        /// Name of the field.
        what: &'static str,
        /// The value.
        found: u64,
        /// The allowed values.
        allowed: &'static str,
    },
    /// A message lists another number of exchanges than it says.
    #[error("it carries {found} exchange(s), expected {expected}")]
    List {
        /// Exchanges listed.
        found: u64,
        /// Exchanges expected.
        expected: u64,
    },
    /// A text is not UTF-8.
    #[error("{what} is not UTF-8")]
    Text {
        /// Name of the text.
        what: &'static str,
    },
}

/// Bytes of a frame before the name.
const HEADER_BYTES: usize = 90;
const NODES: u8 = 0;
const BYTES: u8 = 1;
const ABORT: u8 = 2;
const INTEGERS: u8 = 3;

impl Frame {
    /// The frame as bytes. Texts longer than 65,535 bytes are cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// The bytes of the frame, or more where a text is cut.
    fn size(&self) -> usize {
        let payload = match &self.payload {
            Payload::Nodes(nodes) => {
                let sizes =
                    nodes.iter().map(|node| NODE_HEADER_BYTES as usize + node.values.size());
                4 + sizes.sum::<usize>()
            }
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Abort(reason) => 2 + reason.len(),
        };
        HEADER_BYTES + self.header.name.len() + payload
    }

    /// Appends the frame's bytes.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let header = &self.header;
        out.reserve(self.size());
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.push(header.phase as u8);
        out.push(match &self.payload {
            Payload::Nodes(nodes) => match nodes.first().map(|node| &node.values) {
                Some(Values::Integers(_)) => INTEGERS,
                _ => NODES,
            },
            Payload::Bytes(_) => BYTES,
            Payload::Abort(_) => ABORT,
        });
        let numbers = [
            header.group,
            header.rank,
            header.layer,
            header.step,
            header.subject,
            header.channels,
            header.config,
            header.state,
            header.ranks,
            header.listed,
        ];
        out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        put_text(out, &header.name);
        match &self.payload {
            Payload::Nodes(nodes) => {
                out.extend((nodes.len() as u32).to_le_bytes());
                for node in nodes {
                    out.extend(node.level.to_le_bytes());
                    out.extend(node.index.to_le_bytes());
                    out.extend(node.count.to_le_bytes());
                    node.values.put(out);
                }
            }
            Payload::Bytes(bytes) => out.extend(bytes),
            Payload::Abort(reason) => put_text(out, reason),
        }
    }

    /// Reads a frame that takes up all of the bytes.
    ///
    /// # Errors
    /// [`FrameError`] names the first invalid field.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut reader = Reader { rest: bytes };
        let magic =
            reader.array::<4>("magic").map_err(|_| FrameError::Magic { found: bytes.to_vec() })?;
        if magic != MAGIC {
            return Err(FrameError::Magic { found: magic.to_vec() });
        }
        let version = u16::from_le_bytes(reader.array("version")?);
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        let [phase, kind] = reader.array("phase and kind")?;
        let unknown =
            FrameError::Field { what: "phase", found: phase.into(), allowed: Phase::ALLOWED };
        let phase = Phase::of_number(phase).ok_or(unknown)?;
        let mut number = |what| reader.array(what).map(u64::from_le_bytes);
        let group = number("group")?;
        let rank = number("rank")?;
        let layer = number("layer")?;
        let step = number("exchange")?;
        let subject = number("subject")?;
        let channels = number("channels")?;
        let config = number("config")?;
        let state = number("state")?;
        let ranks = number("ranks")?;
        let listed = number("exchanges")?;
        let name = reader.text("name")?;
        let header = Header {
            group,
            rank,
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
        };
        let payload = match kind {
            NODES | INTEGERS => {
                Payload::Nodes(reader.nodes(phase.pairs(channels), kind == INTEGERS)?)
            }
            BYTES => Payload::Bytes(std::mem::take(&mut reader.rest).to_vec()),
            ABORT => Payload::Abort(reader.text("reason")?),
            _ => {
                return Err(FrameError::Field {
                    what: "kind",
                    found: kind.into(),
                    allowed: "0 to 3",
                });
            }
        };
        if !reader.rest.is_empty() {
            return Err(FrameError::Length {
                what: "end",
                found: reader.rest.len() as u64,
                expected: 0,
            });
        }
        Ok(Self { header, payload })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let most = text.len().min(usize::from(u16::MAX));
    let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    out.extend((end as u16).to_le_bytes());
    out.extend(&text.as_bytes()[..end]);
}
