//! A message: a list of exchanges, each as bytes with their length before them. Decoding takes any
//! bytes.

use super::frame::FrameError;
use super::frame::reader::Reader;

/// Concatenates items, each after its length.
pub(crate) fn pack(items: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        out.extend((item.len() as u64).to_le_bytes());
        out.extend(item);
    }
    out
}

/// The items of a list, at least one.
pub(crate) fn unpack<'a>(what: &'static str, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, FrameError> {
    let mut reader = Reader { rest: bytes };
    let mut items = Vec::new();
    while items.is_empty() || !reader.rest.is_empty() {
        let length = u64::from_le_bytes(reader.array(what)?);
        items.push(reader.take(what, length)?);
    }
    Ok(items)
}

/// Checks that a list is as long as its headers say.
pub(super) fn check_length(found: usize, expected: u64) -> Result<(), FrameError> {
    let found = found as u64;
    if found == expected { Ok(()) } else { Err(FrameError::List { found, expected }) }
}
