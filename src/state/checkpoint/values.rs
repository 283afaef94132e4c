//! Tensors of a file as the numbers of a layer: every type that f32, or a counter, holds exactly.

use half::{bf16, f16};
use safetensors::Dtype;

use super::Entry;
use crate::error::StateError;

/// A vector with one value per channel.
pub(super) fn vector(name: &str, entry: &Entry, bytes: &[u8]) -> Result<Vec<f32>, StateError> {
    let values = match entry.dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |value| f16::from_le_bytes(value).to_f32()),
        Dtype::BF16 => each(bytes, |value| bf16::from_le_bytes(value).to_f32()),
        Dtype::F64 => narrowed(name, &each(bytes, f64::from_le_bytes))?,
        other => return Err(wrong_type(name, other, "F32, F16, BF16 or F64")),
    };
    if entry.shape.len() != 1 {
        return Err(StateError::Rank { name: name.to_owned(), found: entry.shape.clone() });
    }
    Ok(values)
}

/// A number of training steps.
pub(super) fn counter(name: &str, entry: &Entry, bytes: &[u8]) -> Result<u64, StateError> {
    let count: i128 = match entry.dtype {
        Dtype::I64 => one(name, entry, bytes, i64::from_le_bytes)?.into(),
        Dtype::U64 => one(name, entry, bytes, u64::from_le_bytes)?.into(),
        Dtype::I32 => one(name, entry, bytes, i32::from_le_bytes)?.into(),
        Dtype::U32 => one(name, entry, bytes, u32::from_le_bytes)?.into(),
        Dtype::I16 => one(name, entry, bytes, i16::from_le_bytes)?.into(),
        Dtype::U16 => one(name, entry, bytes, u16::from_le_bytes)?.into(),
        Dtype::I8 => one(name, entry, bytes, i8::from_le_bytes)?.into(),
        Dtype::U8 => one(name, entry, bytes, u8::from_le_bytes)?.into(),
        Dtype::F64 => whole(name, one(name, entry, bytes, f64::from_le_bytes)?)?,
        Dtype::F32 => whole(name, one(name, entry, bytes, f32::from_le_bytes)?.into())?,
        Dtype::F16 => whole(name, one(name, entry, bytes, f16::from_le_bytes)?.into())?,
        Dtype::BF16 => whole(name, one(name, entry, bytes, bf16::from_le_bytes)?.into())?,
        other => return Err(wrong_type(name, other, "an integer or a float, such as I64")),
    };
    let refused = |_| StateError::Count { name: name.to_owned(), found: count.to_string() };
    u64::try_from(count).map_err(refused)
}

fn each<const BYTES: usize, T>(bytes: &[u8], value: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
}

/// The one value of a tensor, with dimensions or without.
fn one<const BYTES: usize, T>(
    name: &str,
    entry: &Entry,
    bytes: &[u8],
    value: impl Fn([u8; BYTES]) -> T,
) -> Result<T, StateError> {
    match bytes.as_chunks() {
        ([bytes], []) => Ok(value(*bytes)),
        _ => {
            let name = name.to_owned();
            let found = entry.shape.clone();
            Err(StateError::Shape { name, found, expected: Vec::new() })
        }
    }
}

/// A float that is an integer.
fn whole(name: &str, value: f64) -> Result<i128, StateError> {
    // Beyond 2⁶⁴ no count is accepted; an i128 holds everything up to 2¹²⁷.
    if value.fract() == 0.0 && value.abs() <= 2f64.powi(64) {
        return Ok(value as i128);
    }
    Err(StateError::Count { name: name.to_owned(), found: value.to_string() })
}

/// Values of f64 that f32 holds, or are NaN.
fn narrowed(name: &str, values: &[f64]) -> Result<Vec<f32>, StateError> {
    let is_exact = |value: f64| f64::from(value as f32) == value || value.is_nan();
    match values.iter().position(|&value| !is_exact(value)) {
        Some(channel) => {
            Err(StateError::NotExact { name: name.to_owned(), channel, found: values[channel] })
        }
        None => Ok(values.iter().map(|&value| value as f32).collect()),
    }
}

fn wrong_type(name: &str, found: Dtype, expected: &str) -> StateError {
    let name = name.to_owned();
    let found = found.to_string();
    let expected = expected.to_owned();
    StateError::Dtype { name, found, expected }
}
