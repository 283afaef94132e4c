//! The state of one layer in a checkpoint: reading it, and setting it.

use super::storage::Entry;
use super::{Checkpoint, values};
use crate::error::StateError;
use crate::state::StateDict;
use crate::state::naming::{Naming, TENSORS};
use crate::state::source::{Names, Source};

/// The vectors of a state.
const VECTORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// The tensors of a layer in a file.
pub(super) struct Located<'a> {
    pub naming: &'a Naming,
    /// Name in the file, or the name that a missing tensor would have.
    pub names: [Option<String>; TENSORS],
    pub entries: [Option<&'a Entry>; TENSORS],
    /// Number of tensors with exactly the table's name, separators included.
    pub exact: usize,
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
    pub fn fit(&self) -> (usize, usize) {
        (self.entries.iter().flatten().count(), self.exact)
    }
}

impl Checkpoint {
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
            let name = name(absent).to_owned();
            let of = found.len();
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
                let name = format!("{absent} of the state");
                let of = found.len();
                return Err(StateError::Missing { name, found, of, guess: None });
            }
        }
        let counter = naming.counter;
        let format = naming.format.as_deref().map(str::to_owned);
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
}
