//! The bytes of a checkpoint, in memory or in a file that is read on demand.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::error::StateError;
use crate::state::naming::Counter;

/// Bytes before the header, which are its length.
const LENGTH_BYTES: u64 = 8;
/// The longest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A tensor of a checkpoint.
#[derive(Debug)]
pub(super) struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub place: Place,
}

/// Place of the bytes of a tensor.
#[derive(Debug)]
pub(super) enum Place {
    /// In the file.
    Stored(Range<u64>),
    /// Not yet in the file.
    New(Vec<u8>),
}

impl Place {
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Stored(range) => range.end - range.start,
            Self::New(bytes) => bytes.len() as u64,
        }
    }
}

impl Entry {
    pub fn vector(values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: vec![values.len()], place: Place::New(bytes) }
    }

    pub fn counter(steps: u64, counter: Counter) -> Self {
        let (dtype, bytes) = match counter {
            Counter::I64 if i64::try_from(steps).is_err() => {
                (Dtype::U64, steps.to_le_bytes().to_vec())
            }
            Counter::I64 => (Dtype::I64, steps.to_le_bytes().to_vec()),
            Counter::F32 => (Dtype::F32, (steps as f32).to_le_bytes().to_vec()),
        };
        Self { dtype, shape: Vec::new(), place: Place::New(bytes) }
    }
}

/// The part of a file before its data.
pub(super) struct Header {
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, Entry>,
}

/// The bytes of a whole file.
pub(super) enum Storage {
    Bytes(Vec<u8>),
    File {
        path: PathBuf,
        /// Its place moves with every read.
        file: Mutex<File>,
    },
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl Storage {
    pub fn empty() -> Self {
        Self::Bytes(Vec::new())
    }

    pub fn of_bytes(bytes: Vec<u8>) -> Result<(Self, Header), StateError> {
        let header = read_header(&mut bytes.as_slice(), bytes.len() as u64)
            .map_err(|error| format_error(&error))?;
        Ok((Self::Bytes(bytes), header))
    }

    pub fn open(path: &Path) -> Result<(Self, Header), StateError> {
        let mut file = File::open(path).map_err(|error| file_error(path, &error))?;
        let len_bytes = file.metadata().map_err(|error| file_error(path, &error))?.len();
        let header = read_header(&mut file, len_bytes).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => format_error(&error),
            _ => file_error(path, &error),
        })?;
        Ok((Self::File { path: path.to_owned(), file: Mutex::new(file) }, header))
    }

    /// The bytes of a tensor.
    pub fn read<'a>(&'a self, entry: &'a Entry) -> Result<Cow<'a, [u8]>, StateError> {
        let range = match &entry.place {
            Place::New(bytes) => return Ok(Cow::Borrowed(bytes)),
            Place::Stored(range) => range,
        };
        match self {
            Self::Bytes(bytes) => {
                let [start, end] = [range.start, range.end].map(|at| at as usize);
                Ok(Cow::Borrowed(bytes.get(start..end).unwrap_or_default()))
            }
            Self::File { path, file } => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(range.start))
                    .and_then(|_| file.read_exact(&mut bytes))
                    .map_err(|error| file_error(path, &error))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

/// The list of tensors, checked: they follow each other without a gap to the end of the file.
fn read_header(from: &mut impl Read, len_bytes: u64) -> io::Result<Header> {
    let mut length = [0; LENGTH_BYTES as usize];
    from.read_exact(&mut length)?;
    let header_bytes = u64::from_le_bytes(length);
    let start = header_bytes.checked_add(LENGTH_BYTES).filter(|&start| start <= len_bytes);
    let Some(start) = start.filter(|_| header_bytes <= MAX_HEADER_BYTES) else {
        let message = format!("a header of {header_bytes} bytes in {len_bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    };
    let mut header = vec![0; header_bytes as usize];
    from.read_exact(&mut header)?;
    let list: Metadata = serde_json::from_slice(&header)?;
    let data_bytes = list.data_len() as u64;
    if len_bytes - start != data_bytes {
        let message = format!("{data_bytes} bytes of tensors, found {}", len_bytes - start);
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let tensors = list.tensors().into_iter().map(|(name, info)| {
        let [from, to] = [info.data_offsets.0, info.data_offsets.1].map(|at| start + at as u64);
        let dtype = info.dtype;
        let shape = info.shape.clone();
        (name, Entry { dtype, shape, place: Place::Stored(from..to) })
    });
    let tensors = tensors.collect();
    let metadata =
        list.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
    Ok(Header { tensors, metadata: metadata.collect() })
}

fn format_error(error: &io::Error) -> StateError {
    StateError::Format { message: error.to_string() }
}

pub(super) fn file_error(path: &Path, error: &io::Error) -> StateError {
    StateError::File { path: path.display().to_string(), message: error.to_string() }
}
