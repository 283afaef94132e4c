//! What documents may name: the paths of the repository, its documents, its packages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::markdown::Document;

/// Folders that are no part of the repository: they are ignored, or git's own.
const IGNORED: &[&str] = &["target", "__pycache__", "node_modules", "shared", ".git"];

/// A package of one of the workspaces.
#[derive(Debug)]
pub struct Package {
    pub name: String,
    /// Its folder, relative to the repository.
    pub folder: PathBuf,
    /// Kind and name of each target, such as `("example", "quickstart")`.
    pub targets: Vec<(String, String)>,
}

/// The repository, as far as documents name it. Paths are relative to its root.
#[derive(Debug, Default)]
pub struct Tree {
    pub paths: BTreeSet<PathBuf>,
    pub documents: BTreeMap<PathBuf, Document>,
    pub packages: Vec<Package>,
}

impl Tree {
    /// Reads the repository at `root`.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut open = vec![root.to_path_buf()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if IGNORED.iter().any(|name| path.ends_with(name)) {
                    continue;
                }
                tree.add(root, &path);
                if path.is_dir() {
                    open.push(path);
                }
            }
        }
        tree
    }

    fn add(&mut self, root: &Path, path: &Path) {
        let relative = path.strip_prefix(root).unwrap().to_path_buf();
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = std::fs::read_to_string(path).unwrap();
            self.documents.insert(relative.clone(), Document::parse(&text));
        }
        if path.file_name().is_some_and(|name| name == "Cargo.toml")
            && std::fs::read_to_string(path).unwrap().contains("[workspace]")
        {
            self.packages.extend(packages(root, path));
        }
        self.paths.insert(relative);
    }

    pub fn exists(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.paths.contains(path)
    }
}

/// The packages of the workspace of this manifest, as cargo lists them.
fn packages(root: &Path, manifest: &Path) -> Vec<Package> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: text(&package["name"]),
            folder: Path::new(&text(&package["manifest_path"]))
                .parent()
                .and_then(|folder| folder.strip_prefix(root).ok())
                .unwrap()
                .to_path_buf(),
            targets: list(&package["targets"])
                .iter()
                .map(|target| (text(&target["kind"][0]), text(&target["name"])))
                .collect(),
        })
        .collect()
}
