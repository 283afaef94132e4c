//! A checkpoint as the bytes of a file, and the safe replacement of a file.

use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorInfo;

use super::storage::{Entry, file_error};
use super::{Checkpoint, StateError};

/// Alignment of the header's length, in bytes. Data then begins at a whole word.
const ALIGNMENT_BYTES: usize = 8;

impl Checkpoint {
    /// The tensors in the order of a file: the largest types first, so each value lies at a
    /// multiple of its size. Those of one type are ordered by name.
    fn in_order(&self) -> Vec<(&String, &Entry)> {
        let mut tensors: Vec<_> = self.tensors.iter().collect();
        tensors.sort_by_key(|(_, entry)| Reverse(entry.dtype));
        tensors
    }

    /// The list of tensors in the order of their data, as MindSpore's reader needs it.
    fn header(&self, tensors: &[(&String, &Entry)]) -> io::Result<Vec<u8>> {
        let mut header = b"{".to_vec();
        if !self.metadata.is_empty() {
            add(&mut header, "__metadata__", &serde_json::to_vec(&self.metadata)?)?;
        }
        let mut end = 0;
        for (name, entry) in tensors {
            let start = end;
            end += entry.place.len_bytes() as usize;
            let dtype = entry.dtype;
            let shape = entry.shape.clone();
            let info = TensorInfo { dtype, shape, data_offsets: (start, end) };
            add(&mut header, name, &serde_json::to_vec(&info)?)?;
        }
        header.push(b'}');
        header.resize(header.len().next_multiple_of(ALIGNMENT_BYTES), b' ');
        Ok(header)
    }

    pub(super) fn write_to(&self, to: &mut impl Write) -> Result<(), StateError> {
        self.write_at(to, Path::new("checkpoint"))
    }

    /// Writes everything; `path` is for messages.
    fn write_at(&self, to: &mut impl Write, path: &Path) -> Result<(), StateError> {
        let failed = |error: io::Error| file_error(path, &error);
        let tensors = self.in_order();
        let header = self.header(&tensors).map_err(failed)?;
        to.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
        to.write_all(&header).map_err(failed)?;
        for (_, entry) in tensors {
            to.write_all(&self.storage.read(entry)?).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn save_to(&self, path: &Path) -> Result<(), StateError> {
        // Replaces the target of a link, not the link.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let failed = |error: io::Error| file_error(path, &error);
        let beside = Beside::new(path).map_err(failed)?;
        let mut to = BufWriter::new(&beside.file);
        self.write_at(&mut to, path)?;
        to.flush().map_err(failed)?;
        drop(to);
        beside.replace(path).map_err(failed)
    }
}

/// Adds an entry to a map of JSON that is open at its end.
fn add(map: &mut Vec<u8>, name: &str, value: &[u8]) -> io::Result<()> {
    if map.len() > 1 {
        map.push(b',');
    }
    serde_json::to_writer(&mut *map, name)?;
    map.push(b':');
    map.extend_from_slice(value);
    Ok(())
}

/// A file beside the one that it will replace. Dropping the value removes it, unless it has
/// replaced the other.
struct Beside {
    path: PathBuf,
    file: File,
    is_renamed: bool,
}

impl Beside {
    fn new(of: &Path) -> io::Result<Self> {
        // Random, because in a browser a process has no number.
        let number = RandomState::new().build_hasher().finish();
        let name = of.file_name().unwrap_or_default().to_string_lossy();
        let path = of.with_file_name(format!(".{name}.{number:016x}.tmp"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let beside = Self { path, file, is_renamed: false };
        if let Ok(replaced) = fs::metadata(of) {
            beside.file.set_permissions(replaced.permissions())?;
        }
        Ok(beside)
    }

    /// Takes the place of a file, once everything is on the disk.
    fn replace(mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        self.is_renamed = true;
        // Writes the folder's new entry to the disk too, if the system can open folders.
        if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.is_renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}
