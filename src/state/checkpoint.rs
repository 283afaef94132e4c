//! Files with the states of many layers: read once, changed, and written whole.

mod index;
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
use super::naming::{Counter, KNOWN, Naming, TENSORS};
use super::source::{Names, Source};
use crate::error::StateError;
use index::Index;
use storage::{Entry, Storage};

/// The vectors of a state.
const VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

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

/// The tensors of a layer in a file.
struct Located<'a> {
    naming: &'a Naming,
    /// Name in the file, or the name that a missing tensor would have.
    names: [Option<String>; TENSORS],
    entries: [Option<&'a Entry>; TENSORS],
    /// Number of tensors with exactly the table's name, separators included.
    exact: usize,
}

impl Located<'_> {
    /// Refuses tensors that are no vectors under names of vectors: they are of another layer.
    fn check_vectors(&self) -> Result<(), StateError> {
        let vectors = self.names.iter().zip(self.entries).take(TENSORS - 1);
        for (name, entry) in vectors {
            if let (Some(name), Some(entry)) = (name, entry)
                && entry.shape.len() != 1
            {
                return Err(StateError::Rank { name: name.clone(), found: entry.shape.clone() });
            }
        }
        Ok(())
    }

    /// The fit of the table, larger for a better one.
    fn fit(&self) -> (usize, usize) {
        (self.entries.iter().flatten().count(), self.exact)
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
        let (namings, of_new_layers) = (Cow::Borrowed(&KNOWN[..]), OnceLock::new());
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

    /// Reads the state of the layer at a path, such as `layer1.0.bn1`, `model/bn`, or nothing for a
    /// file with one layer.
    ///
    /// Vectors are f32, or f16, bf16 and f64 that f32 holds exactly. A counter is of any integer or
    /// float type. A tensor that the file does not have is `None`. The layer that takes in the
    /// state refuses it if it needs the tensor.
    ///
    /// # Errors
    /// [`StateError::Missing`] if there is nothing at the path, with the nearest names and a guess;
    /// [`StateError`] names a tensor of another shape or type, or with a value that is not exact in
    /// f32; [`StateError::File`] if the file cannot be read any more.
    pub fn layer(&self, path: &str) -> Result<StateDict, StateError> {
        let located = self.locate(path);
        let Some(located) = located else { return Err(self.missing(path)) };
        let name = |index: usize| located.names[index].as_deref().unwrap_or_default();
        if located.naming.is_numbered()
            && let Some(absent) = (0..4)
                .find(|&index| located.names[index].is_some() && located.entries[index].is_none())
        {
            let found: Vec<String> = self.present(&located).map(str::to_owned).collect();
            let (name, of) = (name(absent).to_owned(), found.len());
            return Err(StateError::Missing { name, found, of, guess: None });
        }
        let vector = |index: usize| {
            let Some(entry) = located.entries[index] else { return Ok(None) };
            let bytes = self.storage.read(entry)?;
            values::vector(name(index), entry, &bytes).map(Some)
        };
        let counter = match located.entries[4] {
            Some(entry) => Some(values::counter(name(4), entry, &self.storage.read(entry)?)?),
            None => None,
        };
        let [weight, bias, running_mean, running_var] =
            [vector(0)?, vector(1)?, vector(2)?, vector(3)?];
        let beside = self.beside(path, &located);
        // Tensors without a name in a framework get PyTorch's name.
        let mut tensors = Naming::TORCH.names(path).map(Option::unwrap_or_default);
        for (name, own) in tensors.iter_mut().zip(located.names) {
            own.into_iter().for_each(|own| *name = own);
        }
        let source = Source::new(Names { tensors, beside });
        let num_batches_tracked = counter;
        Ok(StateDict { weight, bias, running_mean, running_var, num_batches_tracked, source })
    }

    /// Replaces the tensors of the layer at this path by those of the state. Tensors that the state
    /// does not have are removed. A layer that the file has keeps its names. All other tensors
    /// stay. The file changes when the checkpoint is [saved](Self::save).
    ///
    /// Vectors are f32, (C); the counter has the type that the table of names says.
    ///
    /// # Errors
    /// [`StateError::NoName`] if the table of names has none for a vector of the state. A counter
    /// without a name is left out. [`StateError::Missing`] if the table numbers its tensors, and
    /// the state has not all of them. [`StateError::Rank`] if a tensor at the path is no vector, as
    /// the weight of a convolution is not. Nothing has changed then.
    pub fn set_layer(&mut self, path: &str, state: &StateDict) -> Result<(), StateError> {
        let (naming, names, is_present) = match self.locate(path) {
            Some(located) => {
                located.check_vectors()?;
                let Located { naming, names, entries, .. } = located;
                (naming, names, entries.map(|entry| entry.is_some()))
            }
            None => {
                let naming = self.naming_of_new_layers();
                (naming, naming.names(path), [false; TENSORS])
            }
        };
        let nameless = |(name, values): &(&Option<String>, Option<&Vec<f32>>)| {
            name.is_none() && values.is_some()
        };
        if let Some(index) = names.iter().zip(state.vectors()).position(|pair| nameless(&pair)) {
            let framework = naming.framework.to_string();
            let tensor = VECTORS[index];
            return Err(StateError::NoName { framework, tensor });
        }
        if naming.is_numbered() {
            let (there, absent): (Vec<_>, Vec<_>) =
                VECTORS.into_iter().zip(state.vectors()).partition(|(_, values)| values.is_some());
            if let Some((absent, _)) = absent.first() {
                let found: Vec<String> = there.iter().map(|(name, _)| (*name).to_owned()).collect();
                let (name, of) = (format!("{absent} of the state"), found.len());
                return Err(StateError::Missing { name, found, of, guess: None });
            }
        }
        let (counter, format) = (naming.counter, naming.format.as_deref().map(str::to_owned));
        for name in
            names.iter().zip(is_present).filter_map(|(name, is)| name.as_ref().filter(|_| is))
        {
            self.tensors.remove(name);
            self.index.remove(name);
        }
        let [vectors @ .., count] = names;
        let vectors = vectors.into_iter().zip(state.vectors());
        let vectors = vectors.filter_map(|(name, values)| Some((name?, values?)));
        for (name, values) in vectors {
            self.put(name, Entry::vector(values));
        }
        if let (Some(name), Some(steps)) = (count, state.num_batches_tracked) {
            self.put(name, Entry::counter(steps, counter));
        }
        if let Some(format) = format {
            self.metadata.entry("format".to_owned()).or_insert(format);
        }
        Ok(())
    }

    fn put(&mut self, name: String, entry: Entry) {
        self.index.add(&name);
        self.tensors.insert(name, entry);
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
