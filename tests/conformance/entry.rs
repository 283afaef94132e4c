//! Owns what a folder is turned into: scenarios to run, parts whose feature is still to come, and
//! what cannot be read.

use std::path::Path;

use crate::compare::Part;
use crate::manifest::{Manifest, manifests};
use crate::scenario::Group;
use crate::{golden, inference, mindspore, procedural};

/// The formats of manifests that this runner reads.
const KNOWN: [&str; 5] = [
    "syncbn-golden-1",
    "syncbn-golden-2",
    "syncbn-mindspore-1",
    "syncbn-inference-1",
    "syncbn-procedural-1",
];

/// One case of a manifest.
pub struct Entry {
    /// Folder and id.
    pub name: String,
    /// Its ranks.
    pub world: usize,
    /// The halves that the case has.
    pub parts: Vec<Part>,
    pub state: State,
}

pub enum State {
    /// To be run: its process groups, which have every rank once.
    Ready(Vec<Group>),
    /// The library does not have what this case needs: why.
    NotYet(String),
    /// The files are not as they should be.
    Broken(String),
}

/// Reads every case below `root`; `own` says that the folder is this project's, whose formats are
/// all known.
///
/// # Errors
/// Of a folder or manifest that cannot be read. A broken case is an entry of its own.
pub fn read(root: &Path, own: bool) -> Result<Vec<Entry>, String> {
    Ok(manifests(root)?.iter().flat_map(|manifest| entries(root, own, manifest)).collect())
}

fn entries(root: &Path, own: bool, manifest: &Manifest) -> Vec<Entry> {
    let read = match manifest.format.as_str() {
        "syncbn-golden-1" | "syncbn-golden-2" => golden::entry,
        "syncbn-mindspore-1" => mindspore::entry,
        "syncbn-inference-1" => inference::entry,
        "syncbn-procedural-1" => procedural::entry,
        _ if own => {
            let what = format!("{}: {}", manifest.path.display(), unknown(manifest));
            return vec![broken(manifest.path.display().to_string(), what)];
        }
        _ => not_known,
    };
    if manifest.cases.is_empty() {
        let what = format!("{}: the manifest lists no cases", manifest.path.display());
        return vec![broken(manifest.path.display().to_string(), what)];
    }
    let folder = manifest.folder.strip_prefix(root).unwrap_or(&manifest.folder);
    let cases = manifest.cases.iter().enumerate();
    cases
        .map(|(i, case)| {
            let id = case["id"].as_str().map_or_else(|| format!("case {i}"), str::to_owned);
            let name = folder.join(id).display().to_string();
            read(manifest, case, name.clone()).unwrap_or_else(|what| broken(name, what))
        })
        .collect()
}

fn unknown(manifest: &Manifest) -> String {
    format!("the format {:?} is unknown; known are {}", manifest.format, KNOWN.join(", "))
}

/// A case of a format that this runner does not know.
fn not_known(manifest: &Manifest, case: &serde_json::Value, name: String) -> Result<Entry, String> {
    let world = case["world"].as_u64().map_or(1, |world| world as usize);
    let parts = vec![Part::Forward, Part::Backward];
    Ok(Entry { name, world, parts, state: State::NotYet(unknown(manifest)) })
}

fn broken(name: String, what: String) -> Entry {
    Entry { name, world: 0, parts: vec![Part::Forward], state: State::Broken(what) }
}

/// Reads the fields of a case into `T`; the message names manifest and case.
pub fn fields<'a, T: serde::Deserialize<'a>>(
    manifest: &Manifest,
    case: &'a serde_json::Value,
    name: &str,
) -> Result<T, String> {
    T::deserialize(case).map_err(|error| format!("{}, {name}: {error}", manifest.path.display()))
}
