//! Files with the states of many layers: read once, changed, and written whole.

mod index;
mod layers;
mod nearest;
mod storage;
mod values;
mod write;

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use super::StateDict;
use super::naming::{KNOWN, Naming};
use crate::error::StateError;
use index::Index;
use layers::Located;
use storage::{Entry, Storage};

/// A safetensors file, or one to be: the tensors of a model under the names of any framework.
///
/// Opening it reads the list of its tensors. The values of a layer are read when the layer is
/// requested. So a file may be larger than the memory, and the list is read once for any number of
/// layers.
///
/// ```
/// use syncbn::state::{Checkpoint, Naming, StateDict};
/// let mut state = StateDict::default();
/// (state.running_mean, state.running_var) = (Some(vec![0.0; 3]), Some(vec![1.0; 3]));
///
/// let mut checkpoint = Checkpoint::new().with_namings([Naming::FLAX]);
/// checkpoint.set_layer("stem/bn", &state)?;
/// let read = Checkpoint::from_bytes(checkpoint.to_bytes()?)?;
/// assert_eq!(read.names().next(), Some("batch_stats/stem/bn/mean"));
/// assert_eq!(read.layers(), ["stem/bn"]);
/// assert_eq!(read.layer("stem/bn")?, state);
/// # Ok::<(), syncbn::error::StateError>(())
/// ```
pub struct Checkpoint {
    storage: Storage,
    /// The file's own entries beside its tensors.
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
    index: Index,
    namings: Cow<'static, [Naming]>,
    /// Which of them new layers get, if not the first.
    of_new_layers: OnceLock<Option<usize>>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Checkpoint");
        shown.field("storage", &self.storage).field("tensors", &self.tensors.len()).finish()
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self::new()
    }
}

impl Checkpoint {
    /// A checkpoint without tensors.
    pub fn new() -> Self {
        Self::of(Storage::empty(), BTreeMap::new(), BTreeMap::new())
    }

    /// Opens a safetensors file and reads its list of tensors.
    ///
    /// # Errors
    /// [`StateError::File`] if it cannot be read. [`StateError::Format`] if it is not a safetensors
    /// file, or incomplete.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StateError> {
        let (storage, header) = Storage::open(path.as_ref())?;
        Ok(Self::of(storage, header.metadata, header.tensors))
    }

    /// The checkpoint in the bytes of a safetensors file.
    ///
    /// # Errors
    /// [`StateError::Format`] for other bytes.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, StateError> {
        let (storage, header) = Storage::of_bytes(bytes.into())?;
        Ok(Self::of(storage, header.metadata, header.tensors))
    }

    fn of(
        storage: Storage,
        metadata: BTreeMap<String, String>,
        tensors: BTreeMap<String, Entry>,
    ) -> Self {
        let index = Index::new(tensors.keys());
        let namings = Cow::Borrowed(&KNOWN[..]);
        let of_new_layers = OnceLock::new();
        Self { storage, metadata, tensors, index, namings, of_new_layers }
    }

    /// Uses these tables of names instead of the [known](Naming::known) ones. A layer in the file
    /// has the names of the table that finds most of its tensors. Of equal tables the first counts.
    /// A layer that is new gets the names of the first table. Without this call it gets those of
    /// the layers that the file has, or PyTorch's.
    ///
    /// ```
    /// # use syncbn::state::{Checkpoint, Naming};
    /// let [weight, bias] = ["{}.g", "{}.b"].map(|name| Some(name.into()));
    /// let mine = Naming { weight, bias, ..Naming::TORCH };
    /// let checkpoint = Checkpoint::new().with_namings([mine].into_iter().chain(Naming::known()));
    /// ```
    pub fn with_namings(self, namings: impl IntoIterator<Item = Naming>) -> Self {
        Self { namings: Cow::Owned(namings.into_iter().collect()), ..self }
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The paths of the layers with running statistics, in order, for [`layer`](Self::layer).
    pub fn layers(&self) -> Vec<String> {
        self.index.layers(&self.namings)
    }

    /// The bytes of the checkpoint as a safetensors file.
    ///
    /// # Errors
    /// [`StateError::File`] if the file that it was opened from cannot be read any more.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the checkpoint to a file. It writes another file beside it and renames that one, so a
    /// crash leaves the file as it was. The file may be the one that the checkpoint was opened
    /// from.
    ///
    /// # Errors
    /// [`StateError::File`] if it cannot be written, or the file that it was opened from cannot be
    /// read any more. The file is as it was then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), StateError> {
        self.save_to(path.as_ref())
    }

    /// Opens a file or begins a new one, [sets](Self::set_layer) these layers, each with its path,
    /// and [saves](Self::save) it. Everything else in the file stays, byte for byte.
    ///
    /// If two programs update a file at the same time, the later one wins.
    ///
    /// # Errors
    /// As [`open`](Self::open), [`set_layer`](Self::set_layer) and [`save`](Self::save). The file
    /// is as it was then.
    pub fn update<P: AsRef<str>, S: Borrow<StateDict>>(
        path: impl AsRef<Path>,
        layers: impl IntoIterator<Item = (P, S)>,
    ) -> Result<(), StateError> {
        let path = path.as_ref();
        let exists = path.try_exists().map_err(|error| storage::file_error(path, &error))?;
        let mut checkpoint = if exists { Self::open(path)? } else { Self::new() };
        for (layer, state) in layers {
            checkpoint.set_layer(layer.as_ref(), state.borrow())?;
        }
        checkpoint.save(path)
    }
}
