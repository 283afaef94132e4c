//! Finding the tensors of a layer by the tables of names.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::{Checkpoint, Located, StateError};
use crate::state::naming::Naming;

/// The table of layers that are new in a checkpoint without any.
static TORCH: Naming = Naming::TORCH;

/// Names of a file by their normal form, in which separators are alike. Several names may have the
/// same one.
#[derive(Debug, Default)]
pub(super) struct Index(BTreeMap<String, BTreeSet<String>>);

/// A name with `.` for every separator and without the ending `:0` of TensorFlow's variables.
pub(super) fn normal(name: &str) -> String {
    name.strip_suffix(":0").unwrap_or(name).replace('/', ".")
}

impl Index {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let mut index = Self::default();
        names.into_iter().for_each(|name| index.add(name));
        index
    }

    pub fn add(&mut self, name: &str) {
        self.0.entry(normal(name)).or_default().insert(name.to_owned());
    }

    pub fn remove(&mut self, name: &str) {
        let key = normal(name);
        if let Some(names) = self.0.get_mut(&key) {
            names.remove(name);
            if names.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// The first name in the file that differs from this one at most in separators.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.get(&normal(name))?.first().map(String::as_str)
    }

    /// The names directly at a path.
    fn at<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> {
        let path = normal(path.trim_end_matches(['.', '/']));
        let front = if path.is_empty() { path } else { path + "." };
        let from = self.0.range(front.clone()..);
        from.map_while(move |(key, names)| Some((key.strip_prefix(front.as_str())?, names)))
            .filter(|(rest, _)| !rest.contains('.'))
            .flat_map(|(_, names)| names.iter().map(String::as_str))
    }

    /// The paths of layers with running statistics. A tensor belongs to one layer, the one with
    /// most tensors in the file. Of equal ones the first table's layer counts.
    pub fn layers(&self, namings: &[Naming]) -> Vec<String> {
        let mut candidates = Vec::new();
        for (order, naming) in namings.iter().enumerate() {
            for (key, name) in self.names() {
                let Some(path) = path_of(naming, key, name) else { continue };
                let names = naming.names(path);
                if names[3].as_ref().is_none_or(|var| self.find(var).is_none()) {
                    continue;
                }
                let names: Vec<&String> = names.iter().flatten().collect();
                let count = names.iter().filter(|name| self.find(name).is_some()).count();
                if count == names.len() || !naming.is_numbered() {
                    candidates.push((count, order, name, path));
                }
            }
        }
        candidates.sort_by_key(|(count, order, ..)| (std::cmp::Reverse(*count), *order));
        let mut layers = BTreeMap::new();
        for (.., name, path) in candidates {
            layers.entry(name).or_insert_with(|| path.to_owned());
        }
        let mut paths: Vec<String> = layers.into_values().collect();
        paths.sort();
        paths
    }

    /// All names, each with its normal form.
    pub fn names<'a>(&'a self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let of_key = |(key, names): (&'a String, &'a BTreeSet<String>)| {
            names.iter().map(move |name| (key.as_str(), name.as_str()))
        };
        self.0.iter().flat_map(of_key)
    }
}

/// The path of the layer of which a tensor is the running mean. `key` is the name's normal form.
fn path_of<'a>(naming: &Naming, key: &str, name: &'a str) -> Option<&'a str> {
    let (before, after) = naming.running_mean.as_deref()?.split_once("{}")?;
    let before = normal(before);
    let after = normal(after);
    let rest = key.strip_prefix(before.as_str())?;
    let is_whole_model = rest == after.trim_start_matches('.');
    let path = if is_whole_model { "" } else { rest.strip_suffix(after.as_str())? };
    name.get(before.len()..before.len() + path.len())
}

impl Checkpoint {
    /// The tensors at a path, by the table that finds most of them; `None` where none finds any.
    pub(super) fn locate(&self, path: &str) -> Option<Located<'_>> {
        let mut best: Option<Located<'_>> = None;
        for naming in self.namings.iter() {
            let located = self.locate_as(naming, path);
            if located.fit() > best.as_ref().map_or((0, 0), Located::fit) {
                best = Some(located);
            }
        }
        best
    }

    /// The table of a layer that the file does not have: that of the layers that it has, unless the
    /// caller has chosen tables.
    pub(super) fn naming_of_new_layers(&self) -> &Naming {
        let first = self.namings.first().unwrap_or(&TORCH);
        let Cow::Borrowed(known) = &self.namings else { return first };
        // That of most layers. New ones get it as well, so it is looked for once.
        let most = self.of_new_layers.get_or_init(|| {
            let mut layers_of = vec![0; known.len()];
            for located in self.layers().iter().filter_map(|path| self.locate(path)) {
                let of = known.iter().position(|naming| naming == located.naming)?;
                layers_of[of] += 1;
            }
            let most = layers_of.iter().copied().max().filter(|most| *most > 0)?;
            layers_of.iter().position(|layers| *layers == most)
        });
        most.and_then(|most| known.get(most)).unwrap_or(first)
    }

    fn locate_as<'a>(&'a self, naming: &'a Naming, path: &str) -> Located<'a> {
        let mut located =
            Located { naming, names: naming.names(path), entries: Default::default(), exact: 0 };
        for (entry, name) in located.entries.iter_mut().zip(&located.names) {
            *entry = name.as_ref().and_then(|name| self.tensors.get(name));
        }
        located.exact = located.entries.iter().flatten().count();
        // Beside a tensor of exactly the name, what is alike belongs to another layer.
        if located.exact == 0 {
            for (entry, name) in located.entries.iter_mut().zip(&mut located.names) {
                let Some(name) = name else { continue };
                if let Some(alike) = self.index.find(name) {
                    *entry = self.tensors.get(alike);
                    alike.clone_into(name);
                }
            }
        }
        located
    }

    /// The names of a layer that are in the file.
    pub(super) fn present<'a>(&self, located: &'a Located<'_>) -> impl Iterator<Item = &'a str> {
        let each = located.names.iter().zip(located.entries);
        each.filter_map(|(name, entry)| entry.and(name.as_deref()))
    }

    /// Other tensors directly at the path of a layer.
    pub(super) fn beside(&self, path: &str, located: &Located<'_>) -> Vec<String> {
        let names = &located.names;
        let beside = self.index.at(path).filter(|name| !names.iter().flatten().any(|n| n == name));
        beside.map(str::to_owned).collect()
    }

    /// The error of a path without tensors.
    pub(super) fn missing(&self, path: &str) -> StateError {
        let first =
            self.namings.first().and_then(|naming| naming.names(path).into_iter().flatten().next());
        let name = first.unwrap_or_else(|| path.to_owned());
        let found = self.index.nearest(&name);
        let guess = self.index.guess(path, &self.layers());
        StateError::Missing { name, found, of: self.tensors.len(), guess }
    }
}
