//! Messages of an exchange.

use syncbn::collective::Part;
use syncbn::low_level::{
    Frame, REDUCE_GRADIENT_SUMS, REDUCE_STATISTICS, recode_list, recode_merged,
};

use crate::memory::bounded;

/// A frame comes back as the same bytes.
pub fn frame(bytes: &[u8]) {
    // A node of no channel is 20 bytes there and 48 in memory, in a vector that doubles.
    if let Ok(frame) = bounded(bytes, 8, Frame::decode) {
        assert_eq!(frame.encode(), bytes);
    }
}

/// A message of several frames comes back as the same bytes.
pub fn list(bytes: &[u8]) {
    // Three vectors: slices, frames, and the bytes again. An item of 8 bytes is no frame.
    if let Ok(again) = bounded(bytes, 32, recode_list) {
        assert_eq!(again, bytes);
    }
}

/// A merged message comes back as the same bytes, but for a reason that was not UTF-8.
pub fn merged(bytes: &[u8]) {
    if let Ok(again) = bounded(bytes, 32, recode_merged) {
        let is_reason = bytes.first() == Some(&1);
        assert!(again == bytes || is_reason && std::str::from_utf8(&bytes[9..]).is_err());
        assert_eq!(recode_merged(&again).as_ref(), Ok(&again));
    }
}

/// Two messages reduce to a merged message, whatever they are. The first two bytes are the length
/// of the left one.
pub fn reduce(bytes: &[u8]) {
    let Some((length, messages)) = bytes.split_first_chunk() else { return };
    let middle = usize::from(u16::from_le_bytes(*length)).min(messages.len());
    let (left, right) = messages.split_at(middle);
    for op in [REDUCE_STATISTICS, REDUCE_GRADIENT_SUMS] {
        let both = bounded(bytes, 64, |_| {
            op(Part { rank: 0, bytes: left }, Part { rank: 1, bytes: right })
        });
        assert_eq!(recode_merged(&both).as_ref(), Ok(&both));
    }
}
