//! Reading the parts of a frame from bytes that may be anything.

use super::{FrameError, NodePayload, Values};

/// Bytes of a node before its values: level, index, count.
pub(super) const NODE_HEADER_BYTES: u64 = 4 + 8 + 8;
/// Bytes of one channel's values, two f64 or two integers of 128 bits.
const fn channel_bytes(are_integers: bool) -> u64 {
    if are_integers { 32 } else { 16 }
}

/// The bytes that are not read yet.
pub(in crate::collective) struct Reader<'a> {
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FrameError> {
        let found = self.rest.len() as u64;
        let (head, rest) = self.rest.split_first_chunk().ok_or(FrameError::Length {
            what,
            found,
            expected: N as u64,
        })?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn take(&mut self, what: &'static str, expected: u64) -> Result<&'a [u8], FrameError> {
        let found = self.rest.len() as u64;
        if expected > found {
            return Err(FrameError::Length { what, found, expected });
        }
        let (head, rest) = self.rest.split_at(expected as usize);
        self.rest = rest;
        Ok(head)
    }

    pub fn text(&mut self, what: &'static str) -> Result<String, FrameError> {
        let len = u16::from_le_bytes(self.array(what)?);
        let bytes = self.take(what, len.into())?;
        String::from_utf8(bytes.to_vec()).map_err(|_| FrameError::Text { what })
    }

    pub fn nodes(
        &mut self,
        channels: u64,
        are_integers: bool,
    ) -> Result<Vec<NodePayload>, FrameError> {
        let count = u64::from(u32::from_le_bytes(self.array("nodes")?));
        let value_bytes = channels.saturating_mul(channel_bytes(are_integers));
        let node_bytes = value_bytes.saturating_add(NODE_HEADER_BYTES);
        let found = self.rest.len() as u64;
        let expected = count.saturating_mul(node_bytes);
        // Without nodes there are no integers, so one encoding is valid.
        if are_integers && count == 0 {
            let allowed = "1 and more";
            return Err(FrameError::Field { what: "nodes of integers", found: 0, allowed });
        }
        // Checked before the allocation, because the frame may claim any length.
        if found != expected {
            return Err(FrameError::Length { what: "nodes", found, expected });
        }
        (0..count).map(|_| self.node(value_bytes, are_integers)).collect()
    }

    fn node(&mut self, value_bytes: u64, are_integers: bool) -> Result<NodePayload, FrameError> {
        let level = u32::from_le_bytes(self.array("level")?);
        if level > 63 {
            return Err(FrameError::Field {
                what: "level",
                found: level.into(),
                allowed: "0 to 63",
            });
        }
        let index = u64::from_le_bytes(self.array("index")?);
        let count = u64::from_le_bytes(self.array("count")?);
        let bytes = self.take("values", value_bytes)?;
        let values = if are_integers {
            Values::Integers(pairs(bytes, i128::from_le_bytes))
        } else {
            Values::Floats(pairs(bytes, f64::from_le_bytes))
        };
        Ok(NodePayload { level, index, count, values })
    }
}

/// Numbers of `N` bytes, two by two.
fn pairs<T, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<[T; 2]> {
    let numbers = bytes.as_chunks::<N>().0;
    numbers.as_chunks().0.iter().map(|pair: &[[u8; N]; 2]| pair.map(&read)).collect()
}
