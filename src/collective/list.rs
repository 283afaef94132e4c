//! A message: a list of exchanges, each as bytes with their length before them. Decoding takes any
//! bytes.

use super::frame::reader::Reader;
use super::frame::{Frame, FrameError};

/// Concatenates frames, each after its length.
pub(crate) fn pack(frames: impl Iterator<Item = Frame>) -> Vec<u8> {
    let mut out = Vec::new();
    frames.for_each(|frame| put_item(&mut out, |out| frame.put(out)));
    out
}

/// Appends what `put` does, after its length.
pub(super) fn put_item(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let length = [0; size_of::<u64>()];
    out.extend(length);
    let start = out.len();
    put(out);
    let length = ((out.len() - start) as u64).to_le_bytes();
    out[start - length.len()..start].copy_from_slice(&length);
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
